//! The control plane: health, readiness and figures, in the words that monitoring understands.

use harborseal_tests::harness::net::{http_get, wait_until_taken};
use harborseal_tests::harness::{Camera, Lab, Sender, Stream};

#[test]
fn health_readiness_and_metrics_are_served() {
    let mut lab = Lab::new();
    lab.section("control", &format!("listen = \"127.0.0.1:{}\"", lab.port));
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    let engine = lab.start();
    assert_eq!(http_get(lab.port, "/healthz").0, 200);
    assert_eq!(http_get(lab.port, "/readyz").0, 200);
    assert_eq!(http_get(lab.port, "/nothing-here").0, 404);
    let mut sender = Sender::from("127.0.0.1", lab.address());
    sender.send_all(&Stream::new(1).packets(700));
    sender.send_all(&Stream::new(2).packets(30));
    wait_until_taken(lab.port);

    let until = std::time::Instant::now() + harborseal_tests::harness::engine::BOUND;
    let metrics = loop {
        let (status, text) = http_get(lab.port, "/metrics");
        assert_eq!(status, 200);
        if sum_of(&text, "stored") == 700 && sum_of(&text, "dropped") == 30 {
            break text;
        }
        assert!(
            std::time::Instant::now() < until,
            "the figures never came:\n{text}"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert_eq!(sum_of(&metrics, "received"), 730, "{metrics}");
    for line in metrics.lines() {
        assert!(
            line.starts_with('#') || line.starts_with("harborseal_"),
            "no metric of ours: {line}"
        );
    }
    lab.settle_and_stop(engine);
}

/// The sum of `harborseal_<what>_packets_total` over its labels.
fn sum_of(metrics: &str, what: &str) -> u64 {
    let name = format!("harborseal_{what}_packets_total");
    let lines = metrics.lines().filter(|line| line.starts_with(&name));
    lines
        .map(|line| {
            line.rsplit(' ')
                .next()
                .and_then(|n| n.parse::<f64>().ok())
                .expect("a number") as u64
        })
        .sum()
}
