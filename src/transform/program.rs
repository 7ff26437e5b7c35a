//! A compiled module of functions, and how they are called.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use regex::Regex;

use crate::domain::value::{FeatureType, Value};

use super::embedding::Embeddings;
use super::fault::{CallError, Failure, Frame, Problem, Stop};
use super::fingerprint::Fingerprints;
use super::heap::{Heap, Obj, Val};
use super::ir::Code;
use super::limits::{Limits, Meter};
use super::lower;
use super::machine::{Globals, Machine};
use super::syntax::{self, Lines};

/// Stack of the thread that compiles: the parser recurses, to a depth that `syntax` bounds.
const COMPILE_STACK: usize = 64 << 20;
/// Frames of a call stack that a failure shows at either end.
const SHOWN_FRAMES: usize = 4;

/// A compiled module. Immutable and shared: a clone is a pointer, calls take no locks.
#[derive(Clone)]
pub struct Program(Arc<Inner>);

struct Inner {
    lines: Lines,
    code: Vec<Code>,
    names: Vec<String>,
    globals: Vec<Val>,
    heap: Vec<Obj>,
    patterns: HashMap<Arc<str>, Regex>,
    functions: IndexMap<String, Function>,
}

/// A function of a program.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub parameters: Vec<Parameter>,
    /// Whether it takes `*args` or `**kwargs`, whose inputs cannot be known.
    pub variadic: bool,
    pub line: u32,
    pub column: u32,
    /// In hexadecimal; see `fingerprint`.
    pub hash: String,
    value: Val,
}

/// A parameter of a function: the name of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub has_default: bool,
}

/// What a call works with beside its inputs.
#[derive(Clone, Copy, Default)]
pub struct Env<'e> {
    pub embeddings: Option<&'e dyn Embeddings>,
    /// How many numbers `embed` answers with where neither the call nor the wanted type says.
    pub dimension: Option<u32>,
    /// Where not the defaults.
    pub limits: Option<&'e Limits>,
}

impl Program {
    /// Compiles a module and runs its top level. The error lists what is wrong.
    pub fn compile(source: &str) -> Result<Self, Vec<Problem>> {
        let lines = Lines::new(source);
        let failed = |message: &str| Err(vec![lines.problem(0, message)]);
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("compile".to_owned()).stack_size(COMPILE_STACK);
            match builder.spawn_scoped(scope, || compile(source)) {
                // The parser is not ours: should it panic, the source is at fault and nothing else.
                Ok(thread) => thread.join().unwrap_or_else(|_| failed("the source cannot be compiled")),
                Err(_) => failed("there is no thread to compile on"),
            }
        })
    }

    pub fn functions(&self) -> impl ExactSizeIterator<Item = &Function> {
        self.0.functions.values()
    }

    pub fn function(&self, name: &str) -> Option<&Function> {
        self.0.functions.get(name)
    }

    /// Calls one function with inputs by name. Further inputs than it takes are no error.
    pub fn call(
        &self,
        function: &Function,
        inputs: &[(&str, &Value)],
        wanted: FeatureType,
        env: &Env<'_>,
    ) -> Result<Value, CallError> {
        let find = |parameter: &Parameter| {
            inputs.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| *value)
        };
        let inputs: Vec<Option<&Value>> = function.parameters.iter().map(find).collect();
        self.session(env).call(function, &inputs, wanted)
    }

    /// For several calls one after another: they share what they allocate.
    pub fn session<'p>(&'p self, env: &Env<'p>) -> Session<'p> {
        let inner: &'p Inner = &self.0;
        let default = Limits::default();
        let meter = Meter::new(env.limits.unwrap_or(&default));
        let heap = Heap::new(&inner.heap, Vec::new(), meter);
        let globals = Globals::Frozen(&inner.globals);
        let mut machine = Machine::new(heap, &inner.code, &inner.names, globals, &inner.patterns);
        machine.embeddings = env.embeddings;
        Session { program: inner, machine, dimension: env.dimension }
    }
}

/// Evaluates functions of one program, one after another, each under its own [`Limits`].
pub struct Session<'p> {
    program: &'p Inner,
    machine: Machine<'p>,
    dimension: Option<u32>,
}

impl Session<'_> {
    /// Calls a function with inputs in the order of its parameters. An input that has no value is
    /// the parameter's default, else None.
    pub fn call(
        &mut self,
        function: &Function,
        inputs: &[Option<&Value>],
        wanted: FeatureType,
    ) -> Result<Value, CallError> {
        self.machine.reset();
        self.machine.dimension = match wanted {
            FeatureType::Embedding { dimension } => Some(dimension),
            _ => self.dimension,
        };
        let result = self.run(function, inputs, wanted);
        if !self.machine.missing.is_empty() {
            return Err(CallError::NeedsEmbeddings(std::mem::take(&mut self.machine.missing)));
        }
        result.map_err(|stop| self.program.failure(stop, &function.name, (function.line, function.column)))
    }

    fn run(
        &mut self,
        function: &Function,
        inputs: &[Option<&Value>],
        wanted: FeatureType,
    ) -> Result<Value, Stop> {
        const FEW: usize = 8;
        let mut few = [Val::Unset; FEW];
        let mut many = Vec::new();
        let count = function.parameters.len();
        let arguments = if count <= FEW {
            &mut few[..count]
        } else {
            many.resize(count, Val::Unset);
            many.as_mut_slice()
        };
        for (index, (argument, parameter)) in arguments.iter_mut().zip(&function.parameters).enumerate() {
            *argument = match inputs.get(index).copied().flatten() {
                Some(value) => self.machine.import(value)?,
                None if parameter.has_default => Val::Unset,
                None => Val::None,
            };
        }
        let result = self.machine.call(function.value, arguments, &[])?;
        self.machine.export(result, wanted)
    }

    /// Steps that the last call took.
    pub fn steps(&self) -> u64 {
        self.machine.heap.meter.steps_used()
    }
}

impl Inner {
    fn failure(&self, stop: Stop, function: &str, defined: (u32, u32)) -> CallError {
        CallError::Failed(Box::new(failure(&self.lines, &self.code, stop, function, defined)))
    }
}

#[expect(clippy::boxed_local, reason = "it comes in the box in which it travelled")]
fn failure(lines: &Lines, code: &[Code], stop: Stop, function: &str, defined: (u32, u32)) -> Failure {
    let frame = |(index, position): &(u32, u32)| {
        let (line, column) = lines.locate(*position);
        let name = code.get(*index as usize).map_or("?", |code| &code.name);
        Frame { function: name.to_owned(), line, column }
    };
    let trace = &stop.trace;
    let stack: Vec<Frame> = if trace.len() > 2 * SHOWN_FRAMES {
        let ends = trace[..SHOWN_FRAMES].iter().chain(&trace[trace.len() - SHOWN_FRAMES..]);
        ends.map(frame).collect()
    } else {
        trace.iter().map(frame).collect()
    };
    let (line, column) = match (stack.first(), stop.position) {
        (Some(innermost), _) => (innermost.line, innermost.column),
        (None, Some(position)) => lines.locate(position),
        (None, None) => defined,
    };
    Failure { kind: stop.kind, function: function.to_owned(), message: stop.message, stack, line, column }
}

fn compile(source: &str) -> Result<Program, Vec<Problem>> {
    let module = syntax::parse(source).map_err(|problem| vec![problem])?;
    let lines = Lines::new(source);
    let statements = syntax::statements(&module);
    let lowered = lower::lower(&statements, &lines)?;
    let unset = vec![Val::Unset; lowered.globals.len()];
    let heap = Heap::new(&[], lowered.literals, Meter::new(&Limits::default()));
    let globals = Globals::Building(unset);
    let mut machine = Machine::new(heap, &lowered.code, &lowered.globals, globals, &lowered.patterns);
    if let Err(stop) = machine.run_top(lowered.top) {
        let failure = failure(&lines, &lowered.code, stop, "the top level", (1, 1));
        let function = failure.stack.first().map(|frame| frame.function.clone());
        return Err(vec![Problem {
            line: failure.line,
            column: failure.column,
            message: failure.message,
            function: function.filter(|name| !name.starts_with('<')),
        }]);
    }
    let heap = std::mem::take(&mut machine.heap.live);
    let globals = match machine.globals {
        Globals::Building(values) => values,
        Globals::Frozen(values) => values.to_vec(),
    };
    let fingerprints = Fingerprints::new(source, &statements);
    let mut functions = IndexMap::new();
    for (name, value) in lowered.globals.iter().zip(&globals) {
        if let Val::Obj(at) = value
            && let Some(Obj::Function(function)) = heap.get(*at as usize)
            && let Some(code) = lowered.code.get(function.code as usize)
        {
            let (line, column) = lines.locate(code.position);
            let parameters = code.params.iter();
            let parameters = parameters.map(|param| Parameter {
                name: param.name.to_string(),
                has_default: param.default.is_some(),
            });
            let function = Function {
                name: name.clone(),
                parameters: parameters.collect(),
                variadic: code.args.is_some() || code.kwargs.is_some(),
                line,
                column,
                hash: fingerprints.of(name),
                value: *value,
            };
            functions.insert(name.clone(), function);
        }
    }
    Ok(Program(Arc::new(Inner {
        lines,
        names: lowered.globals,
        globals,
        heap,
        patterns: lowered.patterns,
        functions,
        code: lowered.code,
    })))
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("functions", &self.0.functions.keys()).finish_non_exhaustive()
    }
}
