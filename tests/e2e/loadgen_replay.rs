//! A real film captured by a real tool, replayed by three clones into the engine: every packet is stored, each clone's export
//! decodes to the pictures that were filmed, and the engine never sees two clones as one.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use harborseal_tests::harness::tools::{Running, assert_decodes, encode, hashes, text, tool};
use harborseal_tests::harness::{Engine, Lab, Outcome, cli, harborseal, root};

const CLONES: usize = 3;
const BOUND: Duration = Duration::from_secs(120);

fn loadgen(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(cli::build_folder().join("harborseal-loadgen"));
    command.args(arguments);
    cli::run(command, BOUND)
}

#[test]
fn a_captured_film_is_stored_and_exported_of_every_clone() {
    let test = "a_captured_film_is_stored_and_exported_of_every_clone";
    if !root::have_root(test, "capturing takes root") {
        return;
    }
    let lab = Lab::new();
    let (film, capture) = (lab.path("film.mkv"), lab.path("film.pcapng"));
    encode(&film, 3, &["-c:v", "libx264", "-bf", "0", "-g", "25"]);
    // Somebody must take what is captured, or its sender is told that nobody does.
    let (port, _sinks) = even_port();
    let (filter, to) = (format!("udp port {port}"), format!("rtp://127.0.0.1:{port}"));
    #[rustfmt::skip]
    let capturing = Running::start("tshark", &[
        "-q", "-i", "lo", "-f", &filter, "-a", "duration:8", "-w", text(&capture),
    ], lab.path("tshark.errors"));
    wait_for_capture(&lab);
    #[rustfmt::skip]
    tool("ffmpeg", &["-v", "error", "-re", "-i", text(&film), "-c", "copy", "-bsf:v", "h264_mp4toannexb", "-f", "rtp", &to]);
    capturing.finish();

    let clones = CLONES.to_string();
    let target = lab.address().to_string();
    let folder = lab.path("engine");
    let replay = [
        "replay",
        text(&capture),
        "-q",
        "--clone",
        &clones,
        "--target",
        &target,
    ];
    loadgen(&[&replay[..], &["--engine-config", text(&folder)]].concat()).ok();
    let engine = Engine::start(&folder.join("engine.toml"));
    let run = lab.path("run");
    let result = loadgen(&[&replay[..], &["-o", text(&run), "--json"]].concat());
    // Whether a busy machine kept the times is not the matter here; whether all was sent is.
    let result = if result.code == Some(3) {
        result
    } else {
        result.ok()
    }
    .json();
    let end = lab.settle_and_stop(engine);
    let sent = result["load"]["sent"]
        .as_u64()
        .zip(result["load"]["rtcp_sent"].as_u64());
    let sent = sent.map(|(rtp, rtcp)| rtp + rtcp).expect("counts");
    assert!(sent > 100, "{result}");
    assert_eq!(
        (end["received"].as_u64(), end["stored"].as_u64()),
        (Some(sent), Some(sent)),
        "{end}"
    );

    let (data, identity) = (folder.join("data"), folder.join("replay.identity"));
    #[rustfmt::skip]
    let verdict = loadgen(&[
        "verify", text(&run), "--segments", text(&data), "--identity", text(&identity), "--json", "-q",
    ]).ok().json();
    assert!(verdict.to_string().contains("stored_loss\":0"), "{verdict}");

    let pictures = hashes(&film);
    for clone in 0..CLONES {
        let id = format!("clone-{clone:05}");
        let exported = lab.path(&format!("{id}.mp4"));
        #[rustfmt::skip]
        harborseal([
            "export", "--identity", text(&identity), "--camera", &id, "-o", text(&exported), text(&data),
        ]).ok();
        assert_decodes(&exported);
        assert_eq!(hashes(&exported), pictures, "{id}");
    }
}

/// A port as RTP has it, the one above it for RTCP, and who listens there.
fn even_port() -> (u16, [UdpSocket; 2]) {
    loop {
        let rtp = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let port = rtp.local_addr().expect("bound").port();
        if port.is_multiple_of(2)
            && let Ok(rtcp) = UdpSocket::bind(("127.0.0.1", port + 1))
        {
            return (port, [rtp, rtcp]);
        }
    }
}

/// tshark says when it captures; what was sent before that it has not seen.
fn wait_for_capture(lab: &Lab) {
    let said = || std::fs::read_to_string(lab.path("tshark.errors")).unwrap_or_default();
    for _ in 0..1_000 {
        if said().contains("Capturing on") {
            // The words come just before the socket is open.
            std::thread::sleep(Duration::from_millis(500));
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("tshark does not capture: {}", said());
}
