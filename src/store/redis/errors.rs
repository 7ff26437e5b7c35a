//! What goes wrong in Redis or on the way to it, as the errors of a store.

use fred::error::{Error, ErrorKind};

use crate::store::StoreError;

/// Words with which a server refuses to work for now. They stand at the front of an error or,
/// where a script met them on an older server, somewhere in it.
const REFUSALS: [&str; 12] = [
    "LOADING",
    "READONLY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "TRYAGAIN",
    "BUSY",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
];

/// Whether the server does not have the script that it was asked to run.
pub(super) fn is_noscript(error: &Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}

/// An error of a command on `key`.
pub(super) fn of_key(error: Error, key: &[u8]) -> StoreError {
    if error.details().contains("WRONGTYPE") {
        return corrupt(key, "", "the key holds another type of value");
    }
    store_error(error)
}

/// Any other error. No text of fred's or of the server's holds a password.
pub(super) fn store_error(error: Error) -> StoreError {
    let details = error.details();
    let refusal = |word: &&str| details.split(|c: char| !c.is_ascii_uppercase()).any(|part| part == *word);
    match error.kind() {
        ErrorKind::Timeout => StoreError::Timeout,
        // How fred ends what it had written to a connection that broke.
        ErrorKind::IO | ErrorKind::Canceled => StoreError::Interrupted(details.to_owned()),
        ErrorKind::Auth
        | ErrorKind::Routing
        | ErrorKind::Tls
        | ErrorKind::Cluster
        | ErrorKind::Sentinel
        | ErrorKind::Backpressure => StoreError::Unavailable(details.to_owned()),
        ErrorKind::Unknown if REFUSALS.iter().any(refusal) => StoreError::Unavailable(details.to_owned()),
        // How fred says that its connection task has ended or a command has nowhere to go.
        ErrorKind::Unknown
            if details.contains("Client is not initialized")
                || details.contains("send command to router")
                || details.contains("Failed to route command") =>
        {
            StoreError::Unavailable(details.to_owned())
        }
        // A part of a command that could not be written as a whole may have got through.
        ErrorKind::Unknown
            if details.contains("Too many failed write attempts") || details.contains("channel closed") =>
        {
            StoreError::Interrupted(details.to_owned())
        }
        _ => StoreError::Internal(error.to_string()),
    }
}

pub(super) fn corrupt(key: &[u8], field: &str, reason: impl ToString) -> StoreError {
    StoreError::Corrupt {
        key: String::from_utf8_lossy(key).into_owned(),
        field: field.to_owned(),
        reason: reason.to_string(),
    }
}

/// An answer of a shape that the protocol does not allow.
pub(super) fn unexpected(command: &str) -> StoreError {
    StoreError::Internal(format!("redis gave an unexpected answer to {command}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_unavailable_wherever_the_word_stands() {
        for text in [
            "READONLY You can't write against a read only replica.",
            "ERR Error running script (call to f_0): @user_script:1: -READONLY You can't write",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Errors writing to the AOF file",
        ] {
            let error = store_error(Error::new(ErrorKind::Unknown, text));
            assert_eq!(error, StoreError::Unavailable(text.to_owned()));
        }
        let bug = store_error(Error::new(ErrorKind::Unknown, "ERR wrong number of arguments"));
        assert!(matches!(bug, StoreError::Internal(_)));
        assert_eq!(store_error(Error::new(ErrorKind::Timeout, "")), StoreError::Timeout);
    }
}
