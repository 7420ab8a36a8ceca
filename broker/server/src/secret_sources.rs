//! Secrets that lie outside the manifests: in files and in the environment of the process.

use std::fs::File;
use std::io::Read;

use waypost_core::secret::ReadOutside;

/// The most bytes of a secret in a file.
const MAX_SECRET_BYTES: u64 = 1024 * 1024;

/// Reads the file system and the environment of this process.
#[derive(Debug)]
pub(crate) struct ProcessSecrets;

impl ReadOutside for ProcessSecrets {
    fn read_file(&self, path: &str) -> Result<String, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut text = String::new();
        let mut bounded = file.take(MAX_SECRET_BYTES + 1);
        bounded.read_to_string(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_SECRET_BYTES {
            return Err(format!("it is larger than {MAX_SECRET_BYTES} bytes"));
        }
        Ok(text)
    }

    fn read_env(&self, name: &str) -> Result<String, String> {
        std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => "it is not set".to_owned(),
            std::env::VarError::NotUnicode(_) => "it is not UTF-8 text".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_within_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(ProcessSecrets.read_file(path.to_str().unwrap()).as_deref(), Ok("s3cret\n"));
        std::fs::write(&path, vec![b'x'; usize::try_from(MAX_SECRET_BYTES).unwrap() + 1]).unwrap();
        assert!(ProcessSecrets.read_file(path.to_str().unwrap()).unwrap_err().contains("larger"));
        assert!(ProcessSecrets.read_file("/does/not/exist").is_err());
    }

    #[test]
    fn an_unset_variable_is_told() {
        assert_eq!(ProcessSecrets.read_env("WAYPOST_NO_SUCH_VARIABLE"), Err("it is not set".to_owned()));
    }
}
