//! Output generated from the definition of the command line: shell completions, the manual.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Failure;

/// Writes the completions of `shell` to stdout.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Arguments::command(), "windrow", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// Writes the manual page, with all subcommands, to stdout.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn man() -> Result<(), Failure> {
    let mut page = vec![];
    let mut command = Arguments::command();
    command.build();
    let man = clap_mangen::Man::new(command.clone());
    man.render(&mut page)?;
    // One page for all subcommands.
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone());
        writeln!(page, ".SH \"WINDROW {}\"", sub.get_name().to_uppercase())?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    Ok(std::io::stdout().write_all(&page)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_shell_has_completions() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Arguments::command(), "windrow", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("data-dir") && script.contains("run"), "{shell}");
        }
    }
}
