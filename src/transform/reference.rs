//! The reference page of the transformations, written from the table of native functions.

use super::native::{self, Body, Native};

const BEGINNING: &str = "\
<!-- Written by the tests from src/transform; change it there and run
     `UPDATE_DOCS=1 cargo test --lib transform`. -->
# Transformations

A computed feature is derived by a function from other features. Functions are written in
[Starlark](https://github.com/bazelbuild/starlark/blob/master/spec.md), a small dialect of Python,
in the schema's `transformations`. A function's parameters are its inputs: the names of features
and raw inputs of the same entity type.

```yaml
features:
  price: {type: float64}
  price_range: {type: string, computed: {function: price_range}}
transformations: |
  def price_range(price):
      if price == None:
          return None
      return num.label(price, [50, 200, 1000], [\"budget\", \"mid_range\", \"premium\", \"luxury\"])
tests:
  - inputs: {price: 49.99}
    expect: {price_range: budget}
```

## What a function gets and gives

| type | as an input | as a result |
|---|---|---|
| `int64` | int | int |
| `float64` | float | float or int; not nan, not infinite |
| `boolean` | bool | bool |
| `string` | string | string |
| `timestamp` | string, RFC 3339 in UTC | string in RFC 3339, or seconds since 1970 |
| `embedding` | list of floats | list or tuple of `dimension` numbers |
| `json` | dict, list, string, number, bool | the same; a dict's keys are strings |

A null is `None`, as an input and as a result. An input without a value is the parameter's default
(`def f(price, currency=\"EUR\")`), else `None`. A function computed `on: read` may take `now`, the
time of the request; raw inputs then come from the request's context.

`embed(text)` gives the embedding of a text by the configured provider.

## The language

`def`, `lambda`, `if`, `for`, comprehensions, f-strings, `*args` and `**kwargs`: as in Python. What
is not there: `while`, classes, exceptions, `import` and `load`, `is`, the operator `**`. Ints have 64 bits, and
a result beyond them is an error. What a module defines at its top level is constant. There is no
clock, no randomness and no I/O: the same inputs give the same result.

`fail(\"why\")` ends a function with an error. An error names the function, the line and the column,
and the calls that led there.

## Bounds

Each evaluation may take 1,000,000 steps (operators, calls, statements, turns of a loop; work on long texts
and lists counts by their length), 64 MiB of memory, 250 ms, 64 calls inside calls, and give 1 MiB. A
source may have 256 KiB. A regular expression searches at most 64 KiB of text, a large one 12 KiB.

## Functions

**None.** Where the column *None* says `None`, a function given `None` as its first argument gives `None`: a
missing value passes through. Elsewhere `None` is an error, and `if x == None` comes first.

";

/// The page, in Markdown.
pub fn reference_page() -> String {
    let mut page = BEGINNING.to_owned();
    let groups = [
        ("math", "Numbers: `math`"),
        ("num", "Scaling and buckets: `num`"),
        ("text", "Text: `text`"),
        ("cat", "Categories: `cat`"),
        ("time", "Time: `time`"),
        ("geo", "Places: `geo`"),
        ("vec", "Vectors: `vec`"),
        ("", "Built in"),
        ("str", "Methods of strings"),
        ("list", "Methods of lists"),
        ("dict", "Methods of dicts"),
    ];
    for (group, title) in groups {
        let members = native::all().iter().filter(|native| native.group() == group);
        page.push_str(&format!(
            "### {title}\n\n| function | meaning | None | example |\n|---|---|---|---|\n"
        ));
        for native in members {
            page.push_str(&row(native));
        }
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn row(native: &Native) -> String {
    let signature = match (native.is_method, native.def.body) {
        (true, _) => format!("s.{}", native.def.signature.split_once('.').map_or("", |(_, rest)| rest)),
        (false, Body::Bound(_) | Body::Raw(_)) => native.def.signature.to_owned(),
    };
    let signature = match native.group() {
        "list" => signature.replacen("s.", "items.", 1),
        "dict" => signature.replacen("s.", "d.", 1),
        _ => signature,
    };
    let none = if native.def.passes_none { "None" } else { "" };
    let (expression, result) = native.def.example;
    let cell = |text: &str| text.replace('|', "\\|");
    format!(
        "| `{}` | {} | {none} | `{}` is `{}` |\n",
        cell(&signature),
        native.def.doc,
        cell(expression),
        cell(result)
    )
}
