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

A null that was written is `None`, as an input and as a result.

**Inputs.** A parameter without a default is an input that the function cannot do without: while it
has no value (never written, deleted, expired), the function is not called and the computed feature
has no value either, and what needs that one has none, and so on. A parameter with a default
(`def f(price, currency=\"EUR\", brand=None)`) is optional: the default stands in.

**Raw inputs** are data that functions see and the store does not keep. They are declared in
`raw_inputs`, and come with `POST …/compute`:

```yaml
features:
  name: {type: string}
  summary: {type: string, computed: {function: summary}}
raw_inputs:
  description: {type: string}
transformations: |
  def summary(name, description):
      return text.truncate(name + \": \" + description, 80)
```

A write that does not bring a raw input that a function cannot do without leaves what was computed
from it as it is, even where another input changed: what cannot be computed anew stays. Where the
raw input has a default, the feature is computed with the default.

## When

**On write** (the default). A write, a batch, a compute request or a rollback that changes an input
computes everything that depends on it, in dependency order, in the same version of the entity: no
reader ever sees a computed feature that disagrees with its inputs, and several writers at the same
time make no difference. Its event time is the newest of its inputs'. An input that is deleted or
erased takes what cannot do without it along; one that has expired is none for the next computation.
A schema's default stands in where it is read, not where it is written. What is late goes into the
history of its own feature: the past of what is computed from it stays as it was computed then. A
function without inputs is evaluated by compute and recompute only. A computed feature cannot be written.

**On read**: `computed: {function: age_days, on: read}`. It is not stored and has no history: every
read computes it from what is stored. Such a function may take `now`, the time of the request (of
`as_of`, where the past is read), and
raw inputs, which then come from the request's `context`: `\"context\": {\"user_country\": \"DE\"}` in
the body of a batch read, `?context={…}` in a read of one entity.

**From raw data**: `POST /v1/entities/{entity_type}/{entity_id}/compute` with
`{\"raw\": {\"name\": \"iPhone 15\", \"description\": \"…\", \"price\": 999.99}}`. Members that are features are
written as in an ordinary write; all features whose inputs are there are computed. `\"store\": false`
only shows the results; `\"explain\": true` adds the function, the inputs and the time of each.

**Again**: a schema with another function computes with it from then on; what is stored stays until
an input is written. `POST /v1/entity-types/{entity_type}/recompute` starts a job that computes all
entities of the type anew: follow it under `/v1/jobs/{id}`. Features that need raw inputs stay as
they are.

## When a function fails

A function that fails, or whose result does not fit its feature's type and constraints, refuses the
write: 422, with `computation_failed`, the function, the line and the message for each feature.
`computed: {function: f, on_error: skip}` accepts the write without the feature: its outcome is
`skipped`, it has no value, and a compute request says why.

## Embeddings

`embed(text)` gives the embedding of a text. The setting `embedding_provider` chooses where it comes
from:

- `hashing` (the default) is built in: signed feature hashing of words and pairs of words, of any
  dimension, deterministic. Texts that share words are near each other; it knows no meanings.
- `openai` asks any server that speaks `POST {embedding_url}/embeddings` as OpenAI does:
  `embedding_url` (such as `https://api.openai.com/v1`), `embedding_model`, and the key, if it wants
  one, in the environment: `FEATURE_STORE_EMBEDDING_API_KEY`. Texts are asked for in batches
  (`embedding_batch_size`), with a timeout (`embedding_timeout`) and a few more attempts
  (`embedding_retries`) where the server is overloaded, failing or away. Embeddings are kept in
  memory by a hash of their text (`embedding_cache_bytes`). `embedding_send_dimensions = true` asks
  the model for the dimension of the schema.

A provider that is away, or answers another dimension or numbers that are not finite, is not the
writer's fault: the write is refused with 503 and nothing is stored, unless the feature says
`on_error: skip`. Nothing is ever stored in place of an embedding.

A function may make a text out of embeddings, and embed that: it is evaluated anew with what was
fetched for it, up to 4 times with up to 64 texts each. One that asks for more than that has failed
(`computation_failed`). While embeddings are fetched, nobody else waits to write the same entity.

## Testing

`tests` in the schema hold functions against examples: `inputs` by name (`now`, too), and what to
`expect`; null stands for no value. An input that is itself a computed feature is taken as it is
given. Embeddings in tests are the built-in ones. `feature-store check FILE…` checks schema files
as `PUT /v1/entity-types/{entity_type}` would, runs their tests, shows every difference, and ends
with exit code 1 where anything is wrong:

```console
$ feature-store check examples/ecommerce/product.yaml
examples/ecommerce/product.yaml: 7 of 7 tests passed
```

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
