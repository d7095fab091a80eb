//! `shadegrad data`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use shadegrad::data::{DataFormat, Dataset, OpenOptions, open};

use crate::report::{say, thousands};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read a folder as `train` would and say what is in it.
    Check {
        /// The folder.
        folder: PathBuf,
    },
}

const LAYOUTS: &str = "\
Give one of these to `shadegrad train --data`. Nothing is downloaded: the addresses say where to get it.

digits                 embedded: 1437 + 360 handwritten digits of 8x8 pixels, 10 classes

a folder with CIFAR-10, binary version             https://www.cs.toronto.edu/~kriz/cifar.html
  data_batch_1.bin .. data_batch_5.bin, test_batch.bin, batches.meta.txt
  (the unpacked cifar-10-batches-bin, or the folder that holds it; fewer training batches are accepted)

a folder with CIFAR-100, binary version            https://www.cs.toronto.edu/~kriz/cifar.html
  train.bin, test.bin, fine_label_names.txt
  (the unpacked cifar-100-binary, or the folder that holds it)

a folder with MNIST, Fashion-MNIST, KMNIST or EMNIST, as IDX files, each plain or .gz
  train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte
  MNIST: https://yann.lecun.com/exdb/mnist   Fashion-MNIST: https://github.com/zalandoresearch/fashion-mnist

a folder of PNG or JPEG pictures, all of one size
  train/<class>/*.png and test/<class>/*.png (or val/), or <class>/*.png alone: then a fifth of each class is the test set

`shadegrad data check FOLDER` reads a folder and says what is in it, or what is wrong with it.";

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        None => say(LAYOUTS),
        Some(Command::Check { folder }) => check(folder)?,
    }
    Ok(())
}

fn check(folder: &Path) -> Result<()> {
    let (format, found) = DataFormat::detect(folder)?;
    say(format!("{}: {} in {}", folder.display(), name(format), found.display()));
    let pair = open(folder, &OpenOptions::default())?;
    part("train", &pair.train);
    part("test", &pair.test);
    let stats = pair.train.channel_stats()?;
    say(format!("mean of the channels {:.4?}, standard deviation {:.4?}", stats.mean, stats.std));
    say("ready for `shadegrad train --data`");
    Ok(())
}

fn name(format: DataFormat) -> &'static str {
    match format {
        DataFormat::Idx => "IDX files",
        DataFormat::Cifar10 => "CIFAR-10",
        DataFormat::Cifar100 => "CIFAR-100",
        DataFormat::Folder => "a folder of pictures",
    }
}

fn part(which: &str, d: &Dataset) {
    let counts = d.class_counts();
    let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
    say(format!(
        "{which}: {} pictures of {}x{}x{}, {} classes of {least} to {most} pictures ({}{})",
        thousands(d.len()),
        d.height,
        d.width,
        d.channels,
        d.classes.len(),
        d.classes.iter().take(10).cloned().collect::<Vec<_>>().join(", "),
        if d.classes.len() > 10 { ", .." } else { "" }
    ));
}
