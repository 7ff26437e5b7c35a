//! The command line: parse, hand over.

use std::process::ExitCode;

/// A request allocates some hundred small things on one thread and frees them on others, which is
/// what the system's allocator is slowest at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    feature_store::cli::main()
}
