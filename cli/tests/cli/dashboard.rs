//! `shadegrad train --tui`. What it draws is tested beside its source; here, that it asks for a terminal and gives it back.

use crate::Shade;

#[test]
#[cfg(not(feature = "tui"))]
fn without_its_feature_the_dashboard_says_how_to_get_it() {
    Shade::new().bad(&["train", "--tui"], 2, &["feature `tui`", "--features tui"]);
}

#[cfg(feature = "tui")]
#[test]
fn the_dashboard_needs_a_terminal() {
    let s = Shade::new();
    s.bad(&["train", "--tui"], 2, &["--tui", "no terminal", "leave it out"]);
    assert!(!s.path("runs").exists(), "a refused run leaves a folder behind");
}

#[cfg(all(feature = "tui", target_os = "linux"))]
mod on_a_terminal {
    use std::io::Write as _;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use crate::runs::wait_for;
    use crate::{Shade, texts};

    /// Into the dashboard's screen, and out of it.
    const TAKEN: &str = "\u{1b}[?1049h";
    const GIVEN_BACK: &str = "\u{1b}[?1049l";

    /// A run of `epochs` epochs on a terminal made by util-linux's `script`; `None` where there is none.
    fn start(s: &Shade, epochs: &str) -> Option<Child> {
        if Command::new("script").arg("--version").output().is_err() {
            eprintln!("not tested: there is no `script`");
            return None;
        }
        let run = format!(
            "stty cols 100 rows 30; {} train --tui --model mlp --train-limit 100 --test-limit 50 --batch 10 \
             --epochs {epochs} --checkpoint-every 5 --out run; echo status $?; stty -a",
            env!("CARGO_BIN_EXE_shadegrad")
        );
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", &run, "/dev/null"]).current_dir(s.path(""));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Some(child.expect("script starts"))
    }

    fn press(child: &mut Child, key: &[u8]) {
        let keys = child.stdin.as_mut().expect("the keyboard");
        keys.write_all(key).and_then(|()| keys.flush()).expect("a key");
    }

    /// All that went to the terminal, before it was given back and after.
    fn shown(child: Child) -> (String, String) {
        let (all, _) = texts(&child.wait_with_output().expect("an end"));
        let (before, after) = all.split_once(GIVEN_BACK).unwrap_or_else(|| panic!("never given back:\n{all}"));
        assert!(before.contains(TAKEN) && !after.contains(TAKEN) && !after.contains(GIVEN_BACK));
        // As a shell wants it: a cursor, lines, signals and an echo.
        assert!(all.contains("\u{1b}[?25h") && after.contains("icanon"), "{after}");
        for word in ["-icanon", "-isig", "-echo "] {
            assert!(!after.contains(word), "{word:?} at the end:\n{after}");
        }
        (before.into(), after.into())
    }

    #[test]
    fn q_gives_the_terminal_back_and_the_run_goes_on() {
        let s = Shade::new();
        let Some(mut child) = start(&s, "30") else { return };
        wait_for(&mut child, &s.path("run"), 20);
        press(&mut child, b"q");
        let (before, after) = shown(child);
        assert!(before.contains("Test accuracy"), "{before}");
        for word in ["epoch 1/30", "the run goes on", "epoch 30/30", "done in", "status 0"] {
            assert!(after.contains(word), "no {word:?} in\n{after}");
        }
    }

    #[test]
    fn an_end_gives_the_terminal_back() {
        let s = Shade::new();
        let Some(child) = start(&s, "2") else { return };
        let (_, after) = shown(child);
        for word in ["epoch 1/2", "epoch 2/2", "done in", "status 0"] {
            assert!(after.contains(word), "no {word:?} in\n{after}");
        }
    }

    #[test]
    fn ctrl_c_saves_as_without_the_dashboard() {
        let s = Shade::new();
        let Some(mut child) = start(&s, "100000") else { return };
        wait_for(&mut child, &s.path("run"), 20);
        press(&mut child, &[3]);
        let (_, after) = shown(child);
        for word in ["finishing the step", "saved after step", "shadegrad train --resume run", "status 130"] {
            assert!(after.contains(word), "no {word:?} in\n{after}");
        }
        assert_eq!(s.metrics("run").last().expect("a record")["event"], "interrupted");
    }

    /// Signals come to it as to any run, and an error is readable afterwards.
    #[test]
    fn a_failure_gives_the_terminal_back_before_it_is_said() {
        let s = Shade::new();
        let Some(mut child) = start(&s, "100000") else { return };
        wait_for(&mut child, &s.path("run"), 10);
        // A folder where the next checkpoint is to be written.
        let folder = s.path("run/checkpoints");
        std::fs::rename(&folder, s.path("elsewhere")).expect("rename");
        std::fs::write(&folder, "in the way").expect("a file");
        std::thread::sleep(Duration::from_millis(10));
        let (_, after) = shown(child);
        assert!(after.contains("error: ") && after.contains("checkpoints") && after.contains("status 1"), "{after}");
    }
}
