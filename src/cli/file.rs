//! Files that have their name only once they are whole.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::Failure;
use super::client::Client;

/// A file under another name until it is finished; gone if it never is.
pub struct Unfinished {
    file: File,
    path: PathBuf,
    output: PathBuf,
    is_finished: bool,
}

impl Unfinished {
    pub async fn create(output: &Path) -> Result<Self, Failure> {
        let mut path = output.to_owned().into_os_string();
        path.push(".unfinished");
        let path = PathBuf::from(path);
        let file = File::create(&path).await.map_err(|error| at(&path, &error))?;
        Ok(Self { file, path, output: output.to_owned(), is_finished: false })
    }

    /// Writes a body to its end.
    pub async fn take(
        &mut self,
        client: &Client,
        mut body: Body,
        mut seen: impl FnMut(&Bytes),
    ) -> Result<(), Failure> {
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| client.lost(&error))?.into_data() {
                seen(&data);
                self.file.write_all(&data).await.map_err(|error| at(&self.path, &error))?;
            }
        }
        Ok(())
    }

    /// Gives the file its name, if it is what it should be.
    pub async fn finish(mut self, check: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), Failure> {
        self.file.sync_all().await.map_err(|error| at(&self.path, &error))?;
        check(&self.path).map_err(Failure::server)?;
        std::fs::rename(&self.path, &self.output).map_err(|error| at(&self.output, &error))?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            // Half a file is none.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Standard input or output as a file, to be read or written as any other.
pub fn standard(stream: &impl AsFd) -> Result<std::fs::File, Failure> {
    let file = stream.as_fd().try_clone_to_owned();
    file.map(std::fs::File::from).map_err(|error| Failure::usage(format!("a standard stream: {error}")))
}

/// What is wrong with a file of whoever runs the command.
pub fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()))
}
