//! Functions with mistakes: the message says which function, where, and what was wrong.

use super::*;

#[test]
fn mistakes_that_show_when_run() {
    for (body, line, column, words) in [
        ("return 1 / 0", 2, 12, "division by zero"),
        ("return 1 % 0", 2, 12, "division by zero"),
        ("return None + 1", 2, 12, "+ cannot be used between NoneType and int; test `x == None` first"),
        ("return 'a' + 1", 2, 12, "use str(x)"),
        ("return None < 1", 2, 12, "cannot compare NoneType with int"),
        ("return [1][5]", 2, 12, "index 5 is outside a sequence of 1"),
        ("return {'a': 1}['b']", 2, 12, "no key \"b\""),
        ("return {[1]: 2}", 2, 13, "a list cannot be a key of a dict: make it a tuple"),
        ("return 'abc'.index('x')", 2, 12, "str.index(): the part does not occur"),
        ("x = 1\n    return x()", 3, 12, "a int cannot be called"),
        ("return math.log(0)", 2, 12, "math.log(): x must be above 0, not 0"),
        ("return math.sqrt('4')", 2, 12, "math.sqrt(): x must be a number, not \"4\""),
        ("return vec.dot([1], [1, 2])", 2, 12, "a has 1 numbers, b has 2"),
        ("return time.hour('yesterday')", 2, 12, "not an RFC 3339 time"),
        ("fail('no price for', 7)", 2, 5, "no price for 7"),
        ("for x in 'abc':\n        pass", 2, 5, "use s.elems()"),
        ("a, b = [1, 2, 3]", 2, 5, "cannot unpack 3 values into 2"),
        ("if False:\n        x = 1\n    return x", 4, 12, "`x` is used before it has a value"),
        ("return 9223372036854775807 + 1", 2, 12, "does not fit an int (64 bits)"),
        ("return int('12a')", 2, 12, "text of a whole number"),
        ("return sorted([1, 'a'])", 2, 12, "cannot compare"),
        ("return (1).lower()", 2, 13, "1 has no method `lower`"),
        ("return '{} {}'.format(1)", 2, 12, "no value for"),
        ("return '%d' % 'a'", 2, 12, "%d needs a number"),
        ("return (lambda x: x)()", 2, 13, "`x` is missing"),
        ("return 'a'.join([1])", 2, 12, "each item must be a string, not 1"),
        ("return embed('a')", 2, 12, "say how many numbers"),
    ] {
        let failure = failure(&format!("def f():\n    {body}\n"));
        assert_eq!(failure.kind, ErrorKind::Failed, "{body}: {failure}");
        assert!(failure.message.contains(words), "{body}: {failure}");
        assert_eq!((failure.line, failure.column), (line, column), "{body}: {failure}");
        assert_eq!(failure.function, "f");
    }
}

#[test]
fn constants_of_the_module_stay_as_they_are() {
    for change in ["A.append(1)", "A[0] = 1", "D['x'] = 1", "D.update({'y': 1})", "D.setdefault('z', 1)"] {
        let failure = failure(&format!("A = [0]\nD = {{}}\ndef f():\n    {change}\n"));
        assert!(failure.message.contains("constant of the module"), "{change}: {failure}");
    }
}

#[test]
fn the_stack_names_every_function_on_the_way() {
    let source = "def price_of(x):\n    return x[\"price\"]\n\ndef double(x):\n    return 2 * price_of(x)\n\ndef f():\n    return double({})\n";
    let failure = failure(source);
    let stack: Vec<(&str, u32)> = failure.stack.iter().map(|frame| (&*frame.function, frame.line)).collect();
    assert_eq!(stack, [("price_of", 2), ("double", 5), ("f", 8)]);
    assert_eq!(
        failure.to_string(),
        "f (line 2, column 12): the dict has no key \"price\"; called price_of line 2 <- double line 5 <- f line 8"
    );
}

#[test]
fn mistakes_that_show_when_compiled() {
    for (source, line, column, words) in [
        ("def f(:\n    pass", 1, 7, ""),
        ("def f():\nreturn 1", 2, 1, ""),
        ("load('x', 'y')", 1, 1, "load"),
        ("def f(x):\n    return y", 2, 12, "`y` is not defined"),
        ("RATES = 1\ndef f(price):\n    return price * RATE", 3, 20, "did you mean `RATES`?"),
        ("x = math.sqroot(4)", 1, 10, "did you mean `math.sqrt`?"),
        ("x = math", 1, 5, "group of functions"),
        ("x = math.sqrt(1, 2)", 1, 5, "too many arguments: it is math.sqrt(x)"),
        ("x = math.sqrt()", 1, 5, "`x` is missing"),
        ("x = math.sqrt(y=1)", 1, 5, "no parameter `y`"),
        ("def f(x):\n    return x.size", 2, 12, "`.size` must be called"),
        ("def f(x):\n    return x.reversed()", 2, 14, "no value has a method `reversed`"),
        ("x = 1\nx = 2", 2, 1, "already defined"),
        ("len = 1", 1, 1, "built-in name"),
        ("x = 99999999999999999999", 1, 5, "does not fit int64"),
        ("for x in [1]:\n    pass", 1, 1, ""),
        ("def f(x):\n    return text.matches(x, '(')", 2, 12, "not a regular expression"),
        ("while True:\n    pass", 1, 1, ""),
        ("import os", 1, 1, "import"),
        ("x = open('/etc/passwd')", 1, 5, "`open` is not defined"),
        ("x = 1 / 0", 1, 5, "division by zero"),
        ("break", 1, 1, ""),
        ("x = __import__('os')", 1, 5, "not defined"),
    ] {
        let problems = problems(source);
        let problem = &problems[0];
        assert!(problem.message.contains(words), "{source}: {problem}");
        assert_eq!((problem.line, problem.column), (line, column), "{source}: {problem}");
        for internal in ["Error", "src/", "::", "panicked"] {
            assert!(!problem.message.contains(internal), "{source}: {problem}");
        }
    }
}

#[test]
fn too_many_variables_are_refused() {
    let assignments: String = (0..1001).map(|n| format!("    v{n} = 1\n")).collect();
    let problems = problems(&format!("def f():\n{assignments}"));
    assert_eq!(problems[0].to_string(), "line 1, column 5: in f: a function has more than 1000 variables");
}

#[test]
fn a_problem_names_its_function_and_all_are_listed() {
    let problems = problems("def a():\n    return x\n\ndef b():\n    return y\n");
    let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["line 2, column 12: in a: `x` is not defined", "line 5, column 12: in b: `y` is not defined"]
    );
}

#[test]
fn results_are_held_to_the_wanted_type() {
    let float = FeatureType::Float64;
    for (result, wanted, words) in [
        ("'a'", FeatureType::Int64, "returned the string \"a\", expected an int for int64"),
        ("1.5", FeatureType::Int64, "returned 1.5 (float), expected an int for int64"),
        ("True", FeatureType::Int64, "returned True (bool)"),
        ("1", FeatureType::Boolean, "expected a bool"),
        ("1", FeatureType::String, "expected a string"),
        ("[1]", float, "returned a list of 1, expected a number"),
        ("float('1e308') * 10", float, "inf (not a finite number)"),
        ("float('1e308') * 10 * 0", float, "NaN (not a finite number)"),
        ("[1, 2]", FeatureType::Embedding { dimension: 3 }, "expected 3 numbers, got 2"),
        ("[1, 'a']", FeatureType::Embedding { dimension: 2 }, "at index 1"),
        ("[1e39]", FeatureType::Embedding { dimension: 1 }, "index 0 does not fit float32"),
        ("'tomorrow'", FeatureType::Timestamp, "RFC 3339"),
        ("{1: 2}", FeatureType::Json, "JSON needs strings"),
        ("[1e308 * 10]", FeatureType::Json, "not finite"),
        ("len", FeatureType::Json, "a function"),
    ] {
        let error = run(&format!("def f():\n    return {result}\n"), &[], wanted).expect_err(result);
        let failure = error.failure().expect("a failure");
        assert_eq!(failure.kind, ErrorKind::WrongResult, "{result}: {failure}");
        assert!(failure.message.contains(words), "{result}: {failure}");
        assert_eq!((failure.line, &*failure.function), (1, "f"));
    }
    assert_eq!(run("def f():\n    return 3\n", &[], float), Ok(Value::Float64(3.0)));
    assert_eq!(run("def f():\n    return None\n", &[], float), Ok(Value::Null));
}
