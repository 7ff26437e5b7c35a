//! The table of native functions: the built-in ones, the methods of strings, lists and dicts, and
//! the helpers. The reference page is written from this table.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::fault::{Fault, Stop};
use super::heap::Val;
use super::ir::Arguments;
use super::machine::Machine;

/// Most parameters that a native function has.
pub(super) const MAX_PARAMS: usize = 6;

pub(super) type Bound = for<'m, 'p> fn(&'m mut Machine<'p>, &[Val]) -> Result<Val, Stop>;
pub(super) type Raw = for<'m, 'p> fn(&'m mut Machine<'p>, &[Val], &[(&str, Val)]) -> Result<Val, Stop>;

/// What a native function runs.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// Gets one value per parameter, `Unset` where an optional one was not given.
    Bound(Bound),
    /// Gets positional and named arguments as they were given.
    Raw(Raw),
}

/// A native function as its module declares it.
pub(super) struct Def {
    /// `"math.clip(x, low, high)"`; `name=default` is optional, `*name` takes the rest as a tuple.
    /// Methods begin with their type: `"str.split(sep=None)"`.
    pub(super) signature: &'static str,
    pub(super) doc: &'static str,
    /// An expression and the `repr` of its value.
    pub(super) example: (&'static str, &'static str),
    pub(super) body: Body,
    /// None as the first argument gives None.
    pub(super) passes_none: bool,
    /// Which argument is a regular expression.
    pub(super) pattern: Option<usize>,
}

impl Def {
    pub(super) const fn new(
        signature: &'static str,
        doc: &'static str,
        example: (&'static str, &'static str),
        body: Bound,
    ) -> Self {
        Self { signature, doc, example, body: Body::Bound(body), passes_none: false, pattern: None }
    }

    pub(super) const fn raw(
        signature: &'static str,
        doc: &'static str,
        example: (&'static str, &'static str),
        body: Raw,
    ) -> Self {
        Self { signature, doc, example, body: Body::Raw(body), passes_none: false, pattern: None }
    }

    /// None as the first argument gives None.
    pub(super) const fn passes_none(mut self) -> Self {
        self.passes_none = true;
        self
    }

    pub(super) const fn pattern(mut self, argument: usize) -> Self {
        self.pattern = Some(argument);
        self
    }
}

pub(super) struct Native {
    /// `len`, `math.sqrt`, `str.split`.
    pub(super) name: &'static str,
    pub(super) def: &'static Def,
    pub(super) params: Vec<NativeParam>,
    pub(super) required: usize,
    /// The last parameter takes all further positional arguments.
    pub(super) rest: bool,
    pub(super) is_method: bool,
    pub(super) pattern: Option<usize>,
}

pub(super) struct NativeParam {
    pub(super) name: &'static str,
}

struct Table {
    natives: Vec<Native>,
    functions: HashMap<&'static str, u16>,
    namespaces: HashMap<&'static str, u16>,
    methods: HashMap<&'static str, [Option<u16>; 3]>,
}

const METHOD_TYPES: [&str; 3] = ["str", "list", "dict"];

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table {
        natives: Vec::new(),
        functions: HashMap::new(),
        namespaces: HashMap::new(),
        methods: HashMap::new(),
    };
    let groups = [super::builtins::FUNCTIONS, super::str_methods::METHODS, super::collections::METHODS];
    for def in groups.into_iter().chain(super::helpers::ALL.iter().copied()).flatten() {
        let id = table.natives.len() as u16;
        let native = Native::read(def);
        match native.name.split_once('.') {
            Some((kind, method)) if native.is_method => {
                if let Some(index) = METHOD_TYPES.iter().position(|name| *name == kind) {
                    table.methods.entry(method).or_default()[index] = Some(id);
                }
            }
            namespace => {
                if let Some((namespace, _)) = namespace {
                    table.namespaces.entry(namespace).or_insert(id);
                }
                table.functions.insert(native.name, id);
            }
        }
        table.natives.push(native);
    }
    table
});

impl Native {
    fn read(def: &'static Def) -> Self {
        let (name, params) = def.signature.split_once('(').unwrap_or((def.signature, ""));
        let params = params.trim_end_matches(')').split(", ").filter(|param| !param.is_empty());
        let kind = name.split('.').next().unwrap_or_default();
        let is_method = METHOD_TYPES.contains(&kind) && name.contains('.');
        let mut read =
            Self { name, def, params: Vec::new(), required: 0, rest: false, is_method, pattern: def.pattern };
        if is_method {
            read.params.push(NativeParam { name: "self" });
            read.required = 1;
        }
        for param in params {
            let name = match (param.strip_prefix('*'), param.split_once('=')) {
                (Some(name), _) => {
                    read.rest = true;
                    name
                }
                (None, Some((name, _))) => name,
                (None, None) => {
                    read.required += 1;
                    param
                }
            };
            read.params.push(NativeParam { name });
        }
        read
    }

    /// Its name without that of its type.
    #[cfg(test)]
    pub(super) fn title(&self) -> &'static str {
        if self.is_method {
            self.name.split_once('.').map_or(self.name, |(_, method)| method)
        } else {
            self.name
        }
    }

    /// The namespace or type it belongs to; empty for a function that is called by its name alone.
    pub(super) fn group(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(group, _)| group)
    }

    /// Where the parameter that takes the rest stands, and how many can be given by position else.
    fn limit(&self) -> usize {
        if self.rest { usize::MAX } else { self.params.len() }
    }

    pub(super) fn check_arguments(&self, arguments: &Arguments) -> Result<(), String> {
        let raw = matches!(self.def.body, Body::Raw(_));
        if raw || arguments.args.is_some() || arguments.kwargs.is_some() {
            return Ok(());
        }
        let names = arguments.named.iter().map(|(name, _)| &**name);
        self.check_count(arguments.positional.len(), names)
    }

    fn check_count<'a>(
        &self,
        given: usize,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), String> {
        if given > self.limit() {
            return Err(format!("too many arguments: it is {}", self.def.signature));
        }
        for name in names.clone() {
            match self.index(name) {
                None => return Err(format!("no parameter `{name}`: it is {}", self.def.signature)),
                Some(index) if index < given && !(self.rest && index > 0) => {
                    return Err(format!("`{name}` is given twice: it is {}", self.def.signature));
                }
                Some(_) => {}
            }
        }
        for param in self.params.iter().take(self.required).skip(given) {
            if !names.clone().any(|name| name == param.name) {
                return Err(format!("`{}` is missing: it is {}", param.name, self.def.signature));
            }
        }
        Ok(())
    }

    fn index(&self, name: &str) -> Option<usize> {
        let index = self.params.iter().position(|param| param.name == name)?;
        let is_self = self.is_method && index == 0;
        let is_rest = self.rest && self.rest_index() == index;
        (!is_self && !is_rest).then_some(index)
    }

    /// The parameter with a star, by the position it is declared at.
    fn rest_index(&self) -> usize {
        let star = self.def.signature.split_once('(').map_or("", |(_, params)| params);
        let before = star.split(", ").position(|param| param.starts_with('*')).unwrap_or(0);
        before + usize::from(self.is_method)
    }

    /// Puts arguments where the body expects them.
    pub(super) fn bind(
        &self,
        machine: &mut Machine<'_>,
        positional: &[Val],
        named: &[(&str, Val)],
    ) -> Result<[Val; MAX_PARAMS], Stop> {
        let mut bound = [Val::Unset; MAX_PARAMS];
        let names = named.iter().map(|(name, _)| *name);
        self.check_count(positional.len(), names).map_err(Fault::failed)?;
        if self.rest {
            let at = self.rest_index();
            let (before, rest) = positional.split_at(at.min(positional.len()));
            bound[..before.len()].copy_from_slice(before);
            machine.heap.meter.work(rest.len())?;
            bound[at] = machine.heap.new_tuple(rest.to_vec())?;
        } else {
            bound[..positional.len()].copy_from_slice(positional);
        }
        for (name, value) in named {
            if let Some(index) = self.index(name) {
                bound[index] = *value;
            }
        }
        Ok(bound)
    }
}

pub(super) fn get(id: u16) -> &'static Native {
    &TABLE.natives[usize::from(id)]
}

pub(super) fn all() -> &'static [Native] {
    &TABLE.natives
}

/// A function by its full name, such as `len` or `math.sqrt`.
pub(super) fn function(name: &str) -> Option<u16> {
    TABLE.functions.get(name).copied()
}

/// What a method name means for a string, a list and a dict.
pub(super) fn methods(name: &str) -> [Option<u16>; 3] {
    TABLE.methods.get(name).copied().unwrap_or_default()
}

pub(super) fn is_namespace(name: &str) -> bool {
    TABLE.namespaces.contains_key(name)
}

/// A function of a group, for a message.
pub(super) fn one_of(namespace: &str) -> &'static str {
    TABLE.namespaces.get(namespace).map_or("", |id| get(*id).name)
}

/// Whether a module may not define the name.
pub(super) fn is_reserved(name: &str) -> bool {
    is_namespace(name) || function(name).is_some() || matches!(name, "None" | "True" | "False")
}

pub(super) fn names() -> &'static [&'static str] {
    static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| TABLE.functions.keys().copied().collect());
    &NAMES
}

/// The known name that a misspelt one is nearest to, if any is near.
pub(super) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let name: Vec<char> = name.chars().take(64).collect();
    let distances = known.map(|candidate| {
        let letters: Vec<char> = candidate.chars().take(64).collect();
        (super::helpers::text::edit_distance(&name, &letters), candidate)
    });
    distances
        .filter(|(distance, _)| *distance <= (name.len() / 3).min(3) && *distance > 0)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}
