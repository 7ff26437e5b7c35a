//! The command line: parse, hand over.

use std::process::ExitCode;

fn main() -> ExitCode {
    feature_store::cli::main()
}
