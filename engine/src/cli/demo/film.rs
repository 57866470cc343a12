//! One camera as a film: made with its owner's key by the very command a person would type, refused to the other's.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::super::error::{CliError, ExitStatus, OneLine, Plain};
use super::super::output::people;
use super::Stop;
use super::lab::{Lab, NAMES, camera_id};

/// The film that was made.
pub struct Film {
    pub path: PathBuf,
    pub camera: String,
    pub frames: u64,
    /// What `harborseal export` said to the other customer's identity.
    pub refusal: String,
}

/// Exports a camera of alice's with her identity, then tries the same with bob's.
pub fn export(lab: &Lab, camera: u32, stop: &Stop) -> Result<Film, CliError> {
    stop.check()?;
    let camera = camera_id(camera);
    let path = lab.dir().join(format!("{camera}.mp4"));
    let [alice, bob] = NAMES;
    let made = run_export(lab, alice, &camera, &path)?;
    if !made.status.success() {
        return Err(CliError::damage(format_args!(
            "export of {camera} failed: {}",
            last_words(&made)
        )));
    }
    let object = String::from_utf8_lossy(&made.stdout);
    let object: Value = serde_json::from_str(object.lines().last().unwrap_or_default()).unwrap_or_default();
    let frames = super::number(&object, "frames")?;
    people(format_args!(
        "exported {camera} with {alice}'s identity: {frames} frames"
    ));

    stop.check()?;
    let stolen = lab.dir().join("stolen.mp4");
    let refused = run_export(lab, bob, &camera, &stolen)?;
    // What comes behind the semicolon is the remedy: the names of the cameras that bob does have.
    let refusal = last_words(&refused)
        .split("; ")
        .next()
        .unwrap_or_default()
        .to_owned();
    if refused.status.code() != Some(ExitStatus::NothingHere as i32) || stolen.exists() {
        return Err(CliError::damage(format_args!(
            "{bob}'s identity was not refused {alice}'s {camera}: {refusal}"
        )));
    }
    people(format_args!("the same with {bob}'s identity: {refusal}"));
    Ok(Film {
        path,
        camera,
        frames,
        refusal,
    })
}

fn run_export(lab: &Lab, name: &str, camera: &str, path: &Path) -> Result<Output, CliError> {
    let binary = std::env::current_exe();
    let output = binary.and_then(|binary| {
        Command::new(binary)
            .args(["export", "--json", "--camera", camera, "--identity"])
            .arg(lab.identity(name))
            .arg("-o")
            .args([path, &lab.data()])
            .stdin(Stdio::null())
            .output()
    });
    output.map_err(|why| CliError::io(format_args!("cannot start `harborseal export`: {}", Plain(&why))))
}

fn last_words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing");
    let last = last.strip_prefix("harborseal: ").unwrap_or(last);
    OneLine(last).to_string()
}
