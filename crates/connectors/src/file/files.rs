//! Which files a statement may access. The local user may access all that the process may; remote users are confined to
//! roots.
//!
//! Invariants: what is compared is where a path leads, with `..` and symbolic links resolved, not its spelling; what is
//! returned is what was checked; nothing of the data directory is ever below a root except its own `files`.

use std::path::{Component, Path, PathBuf};

use url::Url;
use windrow_core::{Error, ErrorKind, Result};

/// The part of a data directory that holds users' files.
const FILES: &str = "files";
/// Characters that begin a pattern in a path.
const WILD: [char; 3] = ['*', '?', '['];

/// The files and URLs that may be accessed, and the base of relative paths.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// `None`: the working directory of the process.
    base: Option<String>,
    /// `None`: anywhere.
    roots: Option<Vec<Root>>,
    /// The data directory, whose own files may not be accessed.
    kept: Option<Root>,
}

#[derive(Debug, Clone)]
enum Root {
    /// A directory, without symbolic links.
    Local(PathBuf),
    Url(Url),
}

impl Files {
    /// Returns access to all files that the process may access.
    pub fn anywhere() -> Self {
        Self::default()
    }

    /// Returns access to no files at all.
    pub fn nowhere() -> Self {
        Self { roots: Some(vec![]), ..Self::default() }
    }

    /// Returns access to the files in `files` of a data directory, which is created, and below the directories and URLs
    /// `allowed`. Relative paths are relative to the first of them.
    ///
    /// # Errors
    /// When one does not exist, or is not a directory or URL.
    pub fn below(data_dir: Option<&Path>, allowed: &[String]) -> Result<Self> {
        let mut roots = vec![];
        let mut base = None;
        let mut kept = None;
        if let Some(dir) = data_dir {
            let files = dir.join(FILES);
            let text = files.to_string_lossy().into_owned();
            if !text.contains("://") {
                std::fs::create_dir_all(&files).map_err(|e| unusable(&text, &e))?;
            }
            roots.push(Root::open(&text)?);
            kept = Some(Root::open(&dir.to_string_lossy())?);
        }
        for allowed in allowed {
            roots.push(Root::open(allowed)?);
        }
        if let Some(first) = roots.first() {
            base = Some(first.text());
        }
        Ok(Self { base, roots: Some(roots), kept })
    }

    /// Replaces the base of relative paths.
    #[must_use]
    pub fn relative_to(self, base: &str) -> Self {
        Self { base: Some(base.to_owned()), ..self }
    }

    /// The base of relative paths, if it is not the working directory.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// Whether access is restricted.
    pub fn is_confined(&self) -> bool {
        self.roots.is_some()
    }

    /// Resolves a path, glob or URL to read.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] when it leads outside the roots.
    pub fn to_read(&self, path: &str) -> Result<String> {
        self.place(path, true)
    }

    /// Resolves a path or URL to write to.
    ///
    /// # Errors
    /// As [`to_read`](Self::to_read), and for a glob.
    pub fn to_write(&self, path: &str) -> Result<String> {
        self.place(path, false)
    }

    /// Refuses a file found outside the roots.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn check_found(&self, file: &Path) -> Result<()> {
        if !self.is_confined() {
            return Ok(());
        }
        let text = file.to_string_lossy();
        let real = std::fs::canonicalize(file).map_err(|e| unusable(&text, &e))?;
        self.check_local(&text, &real)
    }

    /// Refuses files and symbolic links that lead outside the roots, in a directory and everything below it.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`]; when a directory cannot be read.
    pub fn check_below(&self, path: &str) -> Result<()> {
        if !self.is_confined() || path.contains("://") {
            return Ok(());
        }
        let fixed = fixed_part(Path::new(path));
        let mut todo = vec![fixed];
        while let Some(path) = todo.pop() {
            let text = path.to_string_lossy().into_owned();
            let meta = match std::fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(unusable(&text, &e)),
            };
            if meta.is_symlink() || meta.is_file() {
                self.check_found(&path)?;
            } else if meta.is_dir() {
                for entry in std::fs::read_dir(&path).map_err(|e| unusable(&text, &e))? {
                    todo.push(entry.map_err(|e| unusable(&text, &e))?.path());
                }
            }
        }
        Ok(())
    }

    fn place(&self, path: &str, read: bool) -> Result<String> {
        if !self.is_confined() {
            let plain = !path.contains("://") && !path.starts_with('~');
            return Ok(match &self.base {
                Some(base) if plain && Path::new(path).is_relative() => format!("{base}/{path}"),
                _ => path.to_owned(),
            });
        }
        let Some(base) = &self.base else { return Err(self.outside(path)) };
        let local = match path.split_once("://") {
            Some(("file", _)) => {
                let url = Url::parse(path).map_err(|_| self.outside(path))?;
                url.to_file_path().map_err(|()| self.outside(path))?
            }
            Some(_) => return self.url(path),
            None if base.contains("://") && Path::new(path).is_relative() => {
                return self.url(&format!("{base}/{path}"));
            }
            // Even if it begins with "~" or looks like a URL: it is a name here.
            None => Path::new(base).join(path),
        };
        let local = without_dots(&local);
        let fixed = fixed_part(&local);
        let real = real_path(&fixed).map_err(|e| unusable(path, &e))?;
        self.check_local(path, &real)?;
        if fixed != local && !read {
            return Err(Error::config(format!("\"{path}\" is a pattern, not a place to write to")));
        }
        let rest = local.strip_prefix(&fixed).unwrap_or(Path::new(""));
        let place = if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        let mut place = place.into_os_string().into_string().map_err(|_| self.outside(path))?;
        // A directory is meant.
        if path.ends_with('/') && !place.ends_with('/') {
            place.push('/');
        }
        Ok(place)
    }

    fn check_local(&self, path: &str, real: &Path) -> Result<()> {
        let below = |root: &Root| matches!(root, Root::Local(root) if real.starts_with(root));
        let kept = match &self.kept {
            Some(Root::Local(kept)) => {
                real.starts_with(kept) && !real.starts_with(kept.join(FILES))
            }
            Some(Root::Url(_)) | None => false,
        };
        if !kept && self.roots.iter().flatten().any(below) {
            return Ok(());
        }
        Err(self.outside(path))
    }

    fn url(&self, path: &str) -> Result<String> {
        let head = match path.find(WILD) {
            Some(wild) => path.get(..wild).and_then(|p| p.rsplit_once('/')).map_or("", |p| p.0),
            None => path,
        };
        // Dots and slashes in other spellings have no legitimate use.
        let lower = path.to_ascii_lowercase();
        let tricky = ["/../", "/./", "%2e", "%2f", "%5c", "\\", "#", "@"];
        if tricky.iter().any(|t| lower.contains(t)) || lower.ends_with("/..") {
            return Err(self.outside(path));
        }
        let url = Url::parse(head).map_err(|_| self.outside(path))?;
        let below = |root: &Root| matches!(root, Root::Url(root) if is_below(&url, root));
        let kept = match &self.kept {
            Some(Root::Url(kept)) => {
                let files = Root::open(&format!("{kept}/{FILES}"))?;
                is_below(&url, kept) && !below(&files)
            }
            Some(Root::Local(_)) | None => false,
        };
        if !kept && self.roots.iter().flatten().any(below) {
            return Ok(path.to_owned());
        }
        Err(self.outside(path))
    }

    fn outside(&self, path: &str) -> Error {
        let message = format!("\"{path}\" is outside of the directories for files");
        let error = Error::new(ErrorKind::Denied, message);
        match self.roots.as_deref() {
            Some([]) | None => error.with_hint("The server allows no files (--allow-path)."),
            Some(_) => error.with_hint(
                "Put files into the directory \"files\" of the data directory, or ask an \
                 administrator to allow the path (--allow-path).",
            ),
        }
    }
}

impl Root {
    fn open(text: &str) -> Result<Self> {
        if let Some((scheme, _)) = text.split_once("://")
            && scheme != "file"
        {
            let url = Url::parse(text).map_err(|e| unusable(text, &e))?;
            return Ok(Self::Url(url));
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        let real = std::fs::canonicalize(path).map_err(|e| unusable(text, &e))?;
        if !real.is_dir() {
            return Err(unusable(text, &"it is not a directory"));
        }
        Ok(Self::Local(real))
    }

    fn text(&self) -> String {
        match self {
            Self::Local(path) => path.to_string_lossy().into_owned(),
            Self::Url(url) => url.as_str().trim_end_matches('/').to_owned(),
        }
    }
}

/// Whether a URL is a root or below it.
fn is_below(url: &Url, root: &Url) -> bool {
    let same = url.scheme() == root.scheme()
        && url.host_str() == root.host_str()
        && url.port_or_known_default() == root.port_or_known_default();
    let clean = url.username().is_empty() && url.password().is_none();
    let path = root.path().trim_end_matches('/');
    let rest = url.path().strip_prefix(path);
    same && clean && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Removes `.` and `..` from a path lexically.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// The components before the first one with a wildcard.
fn fixed_part(path: &Path) -> PathBuf {
    let wild = |part: &Component<'_>| part.as_os_str().to_string_lossy().contains(WILD);
    path.components().take_while(|part| !wild(part)).collect()
}

/// Resolves a path; components that do not exist yet are appended to the existing part.
fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    let mut missing = vec![];
    let mut there = path;
    loop {
        match std::fs::canonicalize(there) {
            Ok(real) => {
                return Ok(missing.iter().rev().fold(real, |path, part| path.join(part)));
            }
            // A dangling link would be followed when it is written to.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !there.is_symlink() => {}
            Err(e) => return Err(e),
        }
        match (there.parent(), there.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                there = parent;
            }
            _ => return Ok(path.to_owned()),
        }
    }
}

fn unusable(path: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("\"{path}\" cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        tmp: tempfile::TempDir,
        files: Files,
    }

    impl Fixture {
        fn path(&self, name: &str) -> String {
            self.tmp.path().join(name).to_string_lossy().into_owned()
        }
    }

    fn fixture() -> Fixture {
        let tmp = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(tmp.path()).unwrap();
        for dir in ["data/streams", "other/deep", "secret"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::fs::write(root.join("secret/key"), "k").unwrap();
        std::fs::write(root.join("data/catalog.json"), "{}").unwrap();
        std::fs::write(root.join("other/a.csv"), "a").unwrap();
        let allowed = [
            root.join("other").to_string_lossy().into_owned(),
            "s3://bucket/in".to_owned(),
            "https://host/data/".to_owned(),
        ];
        let files = Files::below(Some(&root.join("data")), &allowed).unwrap();
        Fixture { tmp, files }
    }

    #[test]
    fn what_is_below_a_root_is_allowed() {
        let f = fixture();
        let files = std::fs::canonicalize(f.path("data/files")).unwrap();
        let below = |name: &str| files.join(name).to_string_lossy().into_owned();
        assert_eq!(f.files.base(), Some(below("").trim_end_matches('/')));
        for (path, place) in [
            ("x.csv", below("x.csv")),
            ("./deep/../x.csv", below("x.csv")),
            ("*.csv", below("*.csv")),
            ("deep/*/x", below("deep/*/x")),
            ("~/x", below("~/x")),
            ("file:/etc/passwd", below("file:/etc/passwd")),
            ("out/", below("out/")),
        ] {
            assert_eq!(f.files.to_read(path).unwrap(), place, "{path}");
        }
        for allowed in [f.path("other/a.csv"), f.path("other/deep/../a.csv"), f.path("other")] {
            f.files.to_read(&allowed).unwrap();
            f.files.to_read(&format!("file://{allowed}")).unwrap();
        }
        for url in
            ["s3://bucket/in", "s3://bucket/in/a", "s3://bucket/in/*.csv", "https://host/data/x"]
        {
            assert_eq!(f.files.to_read(url).unwrap(), url);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let f = fixture();
        let paths = [
            "/etc/passwd",
            "../catalog.json",
            "../../secret/key",
            "file:///etc/passwd",
            "file:///etc/%70asswd",
            "file://host/etc/passwd",
            "/*",
            "/etc/*",
            "../*",
            "*/../../catalog.json",
            "http://169.254.169.254/latest/meta-data",
            "http://host/data/x",
            "https://host/database",
            "https://host/data/../x",
            "https://host/data/%2e%2e/x",
            "https://user@host/data/x",
            "https://host:444/data/x",
            "https://evil/data/x",
            "s3://bucket/inside",
            "s3://bucket/i*",
            "s3://bucket/in/../out",
            "s3://other/in/x",
            "S3://bucket/out",
            "gs://bucket/in",
            "://",
        ];
        let more = [f.path("data/catalog.json"), f.path("data/streams/*"), f.path("secret/key")];
        for path in paths.into_iter().chain(more.iter().map(String::as_str)) {
            let error = f.files.to_read(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{path}: {error}");
            assert!(f.files.to_write(path).is_err(), "{path}");
        }
        assert!(f.files.to_write("*.csv").is_err());
        assert_eq!(Files::nowhere().to_read("x").unwrap_err().kind(), ErrorKind::Denied);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        use std::os::unix::fs::symlink;
        let f = fixture();
        symlink(f.path("secret"), f.path("data/files/dir")).unwrap();
        symlink(f.path("secret/key"), f.path("data/files/key.csv")).unwrap();
        symlink(f.path("secret/new"), f.path("data/files/new")).unwrap();
        symlink(f.path("other"), f.path("data/files/good")).unwrap();
        for path in ["dir/key", "key.csv", "dir", "dir/../dir/key", "dir/*"] {
            assert_eq!(f.files.to_read(path).unwrap_err().kind(), ErrorKind::Denied, "{path}");
        }
        // It leads to a path that does not exist yet.
        assert!(f.files.to_write("new").is_err());
        f.files.to_read("good/a.csv").unwrap();
        // A pattern that matches it later.
        f.files.to_read("*.csv").unwrap();
        let found = PathBuf::from(f.path("data/files/key.csv"));
        assert_eq!(f.files.check_found(&found).unwrap_err().kind(), ErrorKind::Denied);
        let below = f.files.to_read("*.csv").unwrap();
        assert_eq!(f.files.check_below(&below).unwrap_err().kind(), ErrorKind::Denied);
        f.files.check_below(&f.path("other")).unwrap();
    }

    #[test]
    fn a_root_that_holds_the_data_directory_does_not_open_it() {
        let f = fixture();
        let all = [f.path("")];
        let files = Files::below(Some(Path::new(&f.path("data"))), &all).unwrap();
        files.to_read(&f.path("secret/key")).unwrap();
        files.to_read(&f.path("data/files/x")).unwrap();
        assert!(files.to_read(&f.path("data/catalog.json")).is_err());
        assert!(Files::below(None, &[f.path("nowhere")]).is_err());
    }

    #[test]
    fn relative_paths_are_remembered() {
        let files = Files::anywhere().relative_to("/data/files");
        assert_eq!(files.to_read("a.csv").unwrap(), "/data/files/a.csv");
        assert_eq!(files.to_read("/a.csv").unwrap(), "/a.csv");
        assert_eq!(Files::anywhere().to_read("a.csv").unwrap(), "a.csv");
    }
}
