//! Files that are read again when they change.

use std::io;
use std::path::PathBuf;

/// Some files that belong together, such as a certificate and its key. They are small, so that their
/// contents are compared: a time of change would miss a Secret that Kubernetes swaps by its link.
#[derive(Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    /// The contents that were told last; the last error, so that it is told once.
    told: Result<Vec<Vec<u8>>, String>,
}

impl Watched {
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, told: Ok(Vec::new()) }
    }

    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads the files for the first time.
    pub fn read(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let contents: io::Result<Vec<Vec<u8>>> =
            self.paths.iter().map(|path| named(path, std::fs::read(path))).collect();
        let contents = contents?;
        self.told = Ok(contents.clone());
        Ok(contents)
    }

    /// Their contents if they are other than those told last.
    pub async fn changed(&mut self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut contents = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            match named(path, tokio::fs::read(path).await) {
                Ok(content) => contents.push(content),
                Err(error) => {
                    let known = self.told.as_ref().is_err_and(|told| *told == error.to_string());
                    self.told = Err(error.to_string());
                    return if known { Ok(None) } else { Err(error) };
                }
            }
        }
        if self.told.as_ref().is_ok_and(|told| *told == contents) {
            return Ok(None);
        }
        self.told = Ok(contents.clone());
        Ok(Some(contents))
    }
}

fn named<T>(path: &std::path::Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
