//! Manual pages and completion scripts, made from the same definition as the help texts.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Command};

use super::args::CompletionsArgs;
use super::output;
use sotto_protocol::error::{Error, Result};

/// Arguments of `sotto man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write one page for each command to this directory; without it the main page is printed
    #[arg(long, env = "SOTTO_MAN_OUT", value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints the main page of `command` to `out`, or writes the pages of all its subcommands that are not hidden to a
/// directory as `NAME-SUBCOMMAND.1`.
///
/// # Errors
/// [`Error::Io`] or [`Error::DiskFull`] on the files; as [`output::failure`] when `out` cannot be written.
pub fn run(args: &ManArgs, command: Command, out: &mut impl Write) -> Result<()> {
    match &args.out {
        Some(directory) => {
            write_pages(command, directory).map_err(|error| Error::io("write", directory, error))
        }
        None => {
            clap_mangen::Man::new(command).render(out).and_then(|()| out.flush()).map_err(output::failure)
        }
    }
}

/// Prints the completion script of `command` for a shell.
///
/// # Errors
/// As [`output::failure`] when `out` cannot be written.
pub fn completions(args: &CompletionsArgs, mut command: Command, out: &mut impl Write) -> Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::write(out, &script)
}

fn write_pages(command: Command, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command, directory)
}
