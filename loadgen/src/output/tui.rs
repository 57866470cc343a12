//! The terminal view of a run. Drawing is a function of [`Live`] alone; the rest of the file takes the terminal and gives it
//! back: at the end, on a panic, by Ctrl-C (a key in raw mode), and by signals (see [`watch`](super::watch)).
//!
//! It is drawn on stderr, so that stdout stays the result's.

use super::live::{Live, ROWS};
use super::watch::next;
use super::words;
use crate::fleet::{Control, LiveSecond};
use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Widget};
use std::io::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// The view holds the terminal. Whoever gives it back clears this, so that it is given back once.
static HELD: AtomicBool = AtomicBool::new(false);
/// Between two looks at keys and seconds.
const TICK: Duration = Duration::from_millis(100);

/// Shows the run until `finished`. A terminal that fails leaves a plain log.
pub fn show(live: Live, control: &Control, seconds: &Receiver<LiveSecond>, finished: impl Fn() -> bool) {
    let mut live = live;
    let shown = show_until(&mut live, control, seconds, &finished);
    restore();
    if let Err(error) = shown {
        let _ = writeln!(
            io::stderr(),
            "the terminal view failed ({error}); a plain log follows"
        );
        super::watch::log(live, control, seconds, finished);
    }
}

fn show_until(
    live: &mut Live,
    control: &Control,
    seconds: &Receiver<LiveSecond>,
    finished: &impl Fn() -> bool,
) -> io::Result<()> {
    take()?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stderr()))?;
    terminal.draw(|frame| draw(frame, live))?;
    while !finished() {
        let mut changed = next(live, control, seconds, TICK);
        while event::poll(Duration::ZERO)? {
            changed = true;
            if let Event::Key(key) = event::read()? {
                let interrupt =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                let stop = interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
                // As with signals: the first asks, the second does not wait.
                if stop
                    && key.kind == KeyEventKind::Press
                    && control.stop.swap(true, Ordering::Relaxed)
                    && interrupt
                {
                    restore();
                    std::process::exit(130);
                }
            }
        }
        if changed || live.stopping {
            terminal.draw(|frame| draw(frame, live))?;
        }
    }
    Ok(())
}

fn take() -> io::Result<()> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
    HELD.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(io::stderr(), EnterAlternateScreen, cursor::Hide)
}

/// Gives the terminal back, if the view holds it. What fails here cannot be mended by anybody.
pub fn restore() {
    if HELD.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
        let _ = execute!(io::stderr(), LeaveAlternateScreen, cursor::Show);
    }
}

/// Draws a run under way.
pub fn draw(frame: &mut Frame, live: &Live) {
    let [head, figures, middle, heat, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(7),
        Constraint::Min(7),
        Constraint::Min(7),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [rate, late] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(middle);
    draw_head(frame, head, live);
    draw_figures(frame, figures, live);
    let gbps = |index: usize| live.seconds[index].sent_bytes as f64 * 8e-9;
    draw_lines(frame, rate, " Gb/s ", live, &[("sent", Color::Blue, &gbps)]);
    let p = |get: fn(&crate::result::Percentiles) -> f64| {
        move |index: usize| get(&live.seconds[index].lateness_ms)
    };
    let (p50, p99, p999) = (p(|ms| ms.p50), p(|ms| ms.p99), p(|ms| ms.p999));
    draw_lines(
        frame,
        late,
        " late, ms ",
        live,
        &[
            ("p99.9", Color::Red, &p999),
            ("p99", Color::Yellow, &p99),
            ("p50", Color::Green, &p50),
        ],
    );
    draw_heat(frame, heat, live);
    let keys = Line::from(" q or Ctrl-C: stop and report what there is · Ctrl-C twice: end at once");
    frame.render_widget(
        Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)),
        foot,
    );
}

fn draw_head(frame: &mut Frame, area: Rect, live: &Live) {
    let about = &live.about;
    let title = format!(
        " {} · {} cameras, {} streams → {} ",
        about.profile,
        words::count(about.cameras as u64),
        words::count(about.streams as u64),
        about.targets.join(", ")
    );
    let label = format!(
        "{} of {} s · {}",
        words::figures(live.at_s()),
        words::figures(about.seconds),
        live.phase()
    );
    let gauge = Gauge::default()
        .block(Block::bordered().title(title))
        .gauge_style(Style::new().fg(Color::Blue))
        .ratio(live.progress())
        .label(label);
    frame.render_widget(gauge, area);
}

fn draw_figures(frame: &mut Frame, area: Rect, live: &Live) {
    let second = live.seconds.back().cloned().unwrap_or_default();
    let now = &second.lateness_ms;
    let whole = live.lateness_ms();
    let name =
        |name: &'static str| Span::styled(format!(" {name:<9}"), Style::new().add_modifier(Modifier::DIM));
    let late_style = if live.too_late() {
        Style::new().fg(Color::Red)
    } else {
        Style::new()
    };
    let lost_style = if live.not_sent > 0 {
        Style::new().fg(Color::Red)
    } else {
        Style::new()
    };
    let three = |p50: f64, p99: f64, p999: f64| {
        format!(
            "p50 {} · p99 {} · p99.9 {}",
            words::ms(p50),
            words::ms(p99),
            words::ms(p999)
        )
    };
    let rate = format!(
        "{} Gb/s · {} packets/s · {} in all",
        words::figures(second.sent_bytes as f64 * 8e-9),
        words::count(second.sent),
        words::count(live.sent)
    );
    let late = format!(
        "{} · run: {}",
        three(now.p50, now.p99, now.p999),
        three(whole.p50, whole.p99, whole.p999)
    );
    let lost = format!(
        "{} not sent by the generator · {} lost on purpose",
        words::count(live.not_sent),
        words::count(live.impaired_lost)
    );
    let cpu = second.cpu_percent;
    let cpu_style = if cpu > 95.0 {
        Style::new().fg(Color::Yellow)
    } else {
        Style::new()
    };
    let lines = vec![
        Line::from(vec![name("rate"), Span::raw(rate)]),
        Line::from(vec![name("late"), Span::styled(late, late_style)]),
        Line::from(vec![name("lost"), Span::styled(lost, lost_style)]),
        Line::from(vec![
            name("CPU"),
            Span::styled(format!("{} % of one core", words::figures(cpu)), cpu_style),
        ]),
        Line::from(vec![name("engine"), Span::raw(engine(live))]),
    ];
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" now ")),
        area,
    );
}

fn engine(live: &Live) -> String {
    let Some(stored) = live.stored else {
        return "its lines are not read (--engine-stats)".to_owned();
    };
    let (received, dropped) = (live.received.unwrap_or(0), live.dropped.unwrap_or(0));
    let durable = live.seconds.iter().rev().find_map(|second| second.durable_ms_p99);
    format!(
        "{} received · {} stored · {} dropped · durable p99 {}",
        words::count(received),
        words::count(stored),
        words::count(dropped),
        durable.map_or_else(|| "not yet".to_owned(), words::ms)
    )
}

/// A line: its name, colour, and its value in each of the seconds.
type Curve<'a> = (&'static str, Color, &'a dyn Fn(usize) -> f64);

fn draw_lines(frame: &mut Frame, area: Rect, title: &'static str, live: &Live, curves: &[Curve]) {
    let at = |index: usize| live.seconds[index].at_s;
    let points: Vec<Vec<(f64, f64)>> = curves
        .iter()
        .map(|(_, _, value)| {
            (0..live.seconds.len())
                .map(|index| (at(index), value(index)))
                .collect()
        })
        .collect();
    let most = points
        .iter()
        .flatten()
        .map(|(_, y)| *y)
        .filter(|y| y.is_finite())
        .fold(0.0, f64::max);
    let most = if most > 0.0 { most * 1.05 } else { 1.0 };
    let from = live.seconds.front().map_or(0.0, |second| second.at_s);
    let to = live
        .seconds
        .back()
        .map_or(1.0, |second| second.at_s)
        .max(from + 1.0);
    let sets = curves.iter().zip(&points).map(|((name, colour, _), points)| {
        Dataset::default()
            .name(*name)
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(*colour))
            .data(points)
    });
    let x = Axis::default()
        .bounds([from, to])
        .labels([words::figures(from), format!("{} s", words::figures(to))]);
    let y = Axis::default()
        .bounds([0.0, most])
        .labels(["0".to_owned(), words::figures(most)]);
    // The names stand in the title: a legend within the chart would cover the latest seconds.
    let mut names = vec![Span::raw(title)];
    for (name, colour, _) in curves.iter().rev() {
        names.push(Span::styled(format!("{name} "), Style::new().fg(*colour)));
    }
    let chart = Chart::new(sets.collect())
        .block(Block::bordered().title(Line::from(names)))
        .legend_position(None)
        .x_axis(x)
        .y_axis(y);
    frame.render_widget(chart, area);
}

fn draw_heat(frame: &mut Frame, area: Rect, live: &Live) {
    let title = format!(
        " packets lost by stream (0 to {}) and second ",
        live.about.streams.saturating_sub(1)
    );
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    frame.render_widget(Heat { live }, inner);
}

/// Rows are streams, columns the latest seconds. A mark as well as a colour: not everybody sees the latter.
struct Heat<'a> {
    live: &'a Live,
}

impl Widget for Heat<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let rows = self.live.rows().min(usize::from(area.height));
        if rows == 0 || area.width == 0 {
            return;
        }
        let columns = self.live.lost.len().min(usize::from(area.width));
        let latest = self.live.lost.iter().skip(self.live.lost.len() - columns);
        for (column, lost) in latest.enumerate() {
            let mut shown = [0u32; ROWS];
            for (row, &lost) in lost.iter().enumerate().take(self.live.rows()) {
                let row = &mut shown[row * rows / self.live.rows()];
                *row = row.saturating_add(lost);
            }
            for (row, &lost) in shown.iter().enumerate().take(rows) {
                let (mark, colour) = mark(lost);
                let (x, y) = (area.x + column as u16, area.y + row as u16);
                buffer[(x, y)].set_symbol(mark).set_fg(colour);
            }
        }
    }
}

/// What stands for so many lost packets.
fn mark(lost: u32) -> (&'static str, Color) {
    match lost {
        0 => ("·", Color::DarkGray),
        1..10 => ("░", Color::Yellow),
        10..100 => ("▒", Color::LightRed),
        100..1000 => ("▓", Color::Red),
        _ => ("█", Color::Magenta),
    }
}

#[cfg(test)]
mod in_a_terminal;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::live::{About, tests::under_way};
    use ratatui::backend::TestBackend;

    fn drawn(live: &Live, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
        terminal
            .draw(|frame| draw(frame, live))
            .expect("a buffer takes everything");
        terminal.backend().to_string()
    }

    #[test]
    fn a_run_under_way_shows_its_facts() {
        let text = drawn(&under_way(42), 140, 40);
        for fact in [
            "city · 4\u{202f}000 cameras",
            "42 of 60 s · steady",
            "8 Gb/s · 833\u{202f}167 packets/s",
            "late, ms p50 p99 p99.9",
            "0 not sent by the generator",
            "dropped · durable p99",
            "% of one core",
            "▒",
            "Ctrl-C",
        ] {
            assert!(text.contains(fact), "{fact}:\n{text}");
        }
    }

    #[test]
    fn before_the_first_second_and_without_an_engine_it_says_so() {
        let text = drawn(&Live::new(About::default()), 100, 30);
        assert!(
            text.contains("starting") && text.contains("--engine-stats"),
            "{text}"
        );
    }

    #[test]
    fn no_size_of_a_terminal_is_too_small() {
        for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 10), (300, 100)] {
            drawn(&under_way(42), width, height);
        }
    }

    #[test]
    fn every_loss_has_a_mark_of_its_own() {
        let marks: Vec<_> = [0, 1, 10, 100, 1000].map(|lost| mark(lost).0).into();
        assert!(marks.windows(2).all(|pair| pair[0] != pair[1]), "{marks:?}");
    }
}
