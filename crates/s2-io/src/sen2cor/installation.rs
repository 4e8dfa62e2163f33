//! An installation of Sen2Cor: looked for where it usually is, and asked for its version.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::output::{printable, shortened};
use super::process::{self, End};
use super::{Error, Result, Sen2Cor, Version, tree};

const PROGRAM: &str = "L2A_Process";
/// Python and its libraries may come from a slow network file system.
const PROBE_LIMIT: Duration = Duration::from_secs(120);

impl Sen2Cor {
    /// Finds Sen2Cor and asks it for its version.
    ///
    /// `given` is `L2A_Process` or the folder that Sen2Cor is installed in. Without it the environment variable
    /// `S2_SEN2COR` says the same. Without both these are searched, in this order: the folders that `SEN2COR_HOME` and
    /// `SEN2COR_BIN` name and those above them (Sen2Cor's own `L2A_Bashrc` sets them to folders of settings and of
    /// Python files); `PATH`; `Sen2Cor-*` in the home folder and in `/opt`, the newest version first.
    ///
    /// # Errors
    ///
    /// There is no `L2A_Process`, or it does not run or tells no version within two minutes.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        Self::probe(locate(
            given,
            &|name| env::var_os(name).filter(|value| !value.is_empty()),
            Path::new("/opt"),
        )?)
    }

    fn probe(executable: PathBuf) -> Result<Self> {
        let mut command = Command::new(&executable);
        command.arg("--help");
        let mut help = Vec::new();
        let end = process::watch(command, PROBE_LIMIT, &mut |chunk| {
            help.extend_from_slice(&chunk[..chunk.len().min((1 << 20) - help.len())]);
            ControlFlow::Continue(())
        })
        .map_err(|source| Error::Run { path: executable.clone(), source })?;
        // The description is broken into lines where it happens to be long.
        let help = printable(&help);
        let problem = match end {
            End::Exited(status) if status.success() => {
                let version =
                    help.split("Version:").nth(1).and_then(|rest| Version::at_start(rest.trim_start()));
                match version {
                    Some(version) => {
                        let product_versions = product_versions(&help);
                        return Ok(Self { executable, version, product_versions });
                    }
                    None => format!("tells no version, but {:?}", shortened(&help)),
                }
            }
            End::Exited(status) => format!("ends with {status}: {:?}", shortened(&help)),
            End::TimeLimit | End::Interrupted => format!("does not end within {} s", PROBE_LIMIT.as_secs()),
        };
        Err(Error::Probe { path: executable, problem })
    }
}

/// The program that [`Sen2Cor::find`] means. `variable` and `opt` stand for the environment and `/opt`.
fn locate(given: Option<&Path>, variable: &dyn Fn(&str) -> Option<OsString>, opt: &Path) -> Result<PathBuf> {
    let chosen = given.map(Path::to_owned).or_else(|| variable("S2_SEN2COR").map(PathBuf::from));
    if let Some(path) = chosen {
        let program = if is_program(&path) { Some(path.clone()) } else { program_in(&path) };
        let program = program.ok_or_else(|| Error::NotSen2Cor { path: path.clone() })?;
        // Sen2Cor runs in its work folder.
        return std::path::absolute(program).map_err(tree::read(&path));
    }
    for folder in ["SEN2COR_HOME", "SEN2COR_BIN"].iter().filter_map(|name| variable(name)) {
        if let Some(program) = Path::new(&folder).ancestors().find_map(program_in) {
            return Ok(program);
        }
    }
    let path = variable("PATH").unwrap_or_default();
    // An empty entry is the present folder, from which nothing should be run by accident.
    let mut on_path = env::split_paths(&path).filter(|folder| folder.is_absolute());
    if let Some(program) =
        on_path.find_map(|folder| Some(folder.join(PROGRAM)).filter(|path| is_program(path)))
    {
        return Ok(program);
    }
    let mut installed = Vec::new();
    for folder in variable("HOME").map(PathBuf::from).into_iter().chain([opt.to_owned()]) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.strip_prefix("Sen2Cor-").and_then(Version::at_start);
            if let (Some(version), Some(program)) = (version, program_in(&entry.path())) {
                installed.push((version, program));
            }
        }
    }
    installed.into_iter().max().map(|(_, program)| program).ok_or_else(|| Error::NotFound {
        looked_in: format!("SEN2COR_HOME, SEN2COR_BIN, PATH, ~/Sen2Cor-* and {}/Sen2Cor-*", opt.display()),
    })
}

fn program_in(folder: &Path) -> Option<PathBuf> {
    [folder.join("bin").join(PROGRAM), folder.join(PROGRAM)].into_iter().find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The words between "Level-1C product version" and the end of the sentence.
fn product_versions(help: &str) -> Option<String> {
    let (_, rest) = help.split_once("Level-1C product version")?;
    let words: Vec<_> = rest
        .trim_start_matches(':')
        .split_whitespace()
        .map(|word| word.trim_end_matches('.'))
        .take_while(|word| matches!(*word, "-" | "<=") || word.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path) -> PathBuf {
        fs::create_dir_all(folder.join("bin")).unwrap();
        let path = folder.join("bin").join(PROGRAM);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn it_is_looked_for_where_it_is_usually_installed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let find = |given: Option<&Path>, variables: &[(&str, PathBuf)]| {
            let variable = |name: &str| {
                variables
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| value.clone().into_os_string())
            };
            locate(given, &variable, &root.join("opt"))
        };
        let home = ("HOME", root.join("home"));
        let nothing = find(None, std::slice::from_ref(&home)).unwrap_err().to_string();
        assert!(
            nothing.starts_with("no L2A_Process in SEN2COR_HOME, SEN2COR_BIN, PATH, ~/Sen2Cor-* and "),
            "{nothing}"
        );
        assert!(nothing.ends_with("; install Sen2Cor, or name its folder in S2_SEN2COR"), "{nothing}");

        // The first in alphabetical order, and the first folder, are not the newest.
        program(&root.join("home/Sen2Cor-02.05.05-Linux64"));
        let newest = program(&root.join("home/Sen2Cor-02.12.03-Linux64"));
        program(&root.join("opt/Sen2Cor-02.08.00-Linux64"));
        fs::create_dir_all(root.join("opt/Sen2Cor-03.00.00-without-a-program")).unwrap();
        assert_eq!(find(None, std::slice::from_ref(&home)).unwrap(), newest);

        let on_path = program(&root.join("path"));
        let path = ("PATH", PathBuf::from(format!(":/nowhere:{}", root.join("path/bin").display())));
        assert_eq!(find(None, &[home.clone(), path.clone()]).unwrap(), on_path);

        // As `L2A_Bashrc` sets them: settings of the user, and Python files of the installation.
        let installed = program(&root.join("installed"));
        let python = root.join("installed/lib/python2.7/site-packages/sen2cor");
        let bashrc = [("SEN2COR_HOME", root.join("home/sen2cor/2.11")), ("SEN2COR_BIN", python)];
        let mut variables = vec![home, path];
        variables.extend(bashrc);
        assert_eq!(find(None, &variables).unwrap(), installed);

        let chosen = program(&root.join("chosen"));
        variables.push(("S2_SEN2COR", root.join("chosen")));
        assert_eq!(find(None, &variables).unwrap(), chosen);
        assert_eq!(find(Some(&newest), &variables).unwrap(), newest);
        // Who chooses gets that or an error, not another version.
        let error = find(Some(&root.join("gone")), &variables).unwrap_err();
        assert!(matches!(error, Error::NotSen2Cor { .. }), "{error}");
    }

    #[test]
    fn announced_product_versions_end_with_the_sentence() {
        for (help, expected) in [
            ("supporting Level-1C product version 14.2 - 14.5. positional arguments", Some("14.2 - 14.5")),
            ("supporting Level-1C product version <= 14.5. positional", Some("<= 14.5")),
            ("supporting Level-1C product version: 14. positional", Some("14")),
            ("supporting Level-1C product version 15.0 started", Some("15.0")),
            ("supporting Level-1C product version", None),
            ("usage", None),
        ] {
            assert_eq!(product_versions(help).as_deref(), expected, "{help}");
        }
    }
}
