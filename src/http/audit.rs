//! Who changed or took away what cannot be had back by writing it again: the registry, whatever was
//! deleted, whatever was rolled back. Attempts that were refused too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use axum::http::{Method, StatusCode, Uri};
use serde::Serialize;

use super::access::Access;
use crate::domain::time::Timestamp;

/// Log lines with the target `audit`, and the same as lines of JSON in a file where one is named.
#[derive(Debug, Default)]
pub struct Audit {
    file: Option<Mutex<File>>,
}

/// A request worth a line.
#[derive(Serialize)]
pub struct Act<'a> {
    pub time: Timestamp,
    /// The key's name; empty where no key was asked for, or none was good.
    pub actor: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub status: u16,
    pub outcome: &'static str,
    pub request_id: &'a str,
}

impl Audit {
    /// Appends to `path`, which is made where it is not there.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { file: file.map(Mutex::new) })
    }

    /// Whether such a request is noted.
    pub fn concerns(access: Option<Access>, method: &Method, route: &str) -> bool {
        access.is_some_and(|access| access != Access::Probe)
            && (access == Some(Access::Admin) || method == Method::DELETE || route.ends_with("/rollback"))
    }

    pub fn note(
        &self,
        time: Timestamp,
        actor: &str,
        method: &Method,
        uri: &Uri,
        status: StatusCode,
        request_id: &str,
    ) {
        let act = Act {
            time,
            actor,
            method: method.as_str(),
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            status: status.as_u16(),
            outcome: match status {
                status if status.is_success() => "ok",
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => "refused",
                _ => "failed",
            },
            request_id,
        };
        tracing::info!(
            target: "audit",
            actor = act.actor, method = act.method, path = act.path, query = act.query,
            status = act.status, outcome = act.outcome, request_id = act.request_id, "audit",
        );
        let Some(file) = &self.file else { return };
        let Ok(mut line) = serde_json::to_vec(&act) else { return };
        line.push(b'\n');
        // One call a line, so that lines of several servers do not mix.
        if let Err(error) = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line) {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }
}
