//! `feature-store openapi`

use std::io::Write;

/// Prints the OpenAPI document of this build.
pub fn print() -> Result<(), String> {
    let document = crate::http::openapi().to_pretty_json().map_err(|error| error.to_string())?;
    // Written rather than printed: a reader that closes the pipe early is no reason to panic.
    writeln!(std::io::stdout(), "{document}").map_err(|error| error.to_string())
}
