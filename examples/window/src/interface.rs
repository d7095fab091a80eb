//! What the window shows, and what it does with the pointer.

use std::f32::consts::TAU;
use std::thread::JoinHandle;

use egui::{Align2, Color32, FontId, Pos2, Rect, Sense, Stroke, StrokeKind, Ui, Vec2};
use shadegrad::train::Budget;
use shadegrad::{Gpu, Result, wgpu};

use crate::field::FieldPipeline;
use crate::learner::{Learner, POINTS, Point, first_step};

/// The training: its first step is taken on a thread, all others by the frame loop.
enum Training {
    Starting(JoinHandle<Result<Learner>>),
    Running(Box<Learner>),
    Failed(String),
}

pub struct Interface {
    gpu: Gpu,
    buffer: wgpu::Buffer,
    pipeline: FieldPipeline,
    training: Training,
    points: Vec<Point>,
    /// Whether the buffer holds other points than `points`.
    changed: bool,
    class: f32,
    rate_exponent: f32,
    pub paused: bool,
    seed: u64,
    pub losses: Vec<f32>,
    /// Where the field is on the screen.
    pub field: Rect,
    /// Frames and steps per second, for the panel.
    pub speed: (f32, f32),
}

impl Interface {
    pub fn new(gpu: Gpu, format: wgpu::TextureFormat) -> Self {
        let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("points"),
            size: (POINTS * size_of::<Point>()) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let pipeline = FieldPipeline::new(gpu.device(), format);
        let mut new = Self {
            training: Training::Failed(String::new()),
            gpu,
            buffer,
            pipeline,
            points: spirals(),
            changed: true,
            class: 1.0,
            rate_exponent: -2.3,
            paused: false,
            seed: 0,
            losses: Vec::new(),
            field: Rect::ZERO,
            speed: (0.0, 0.0),
        };
        new.upload();
        new.start();
        new
    }

    /// A new network, from the next seed.
    fn start(&mut self) {
        let (gpu, buffer, seed) = (self.gpu.clone(), self.buffer.clone(), self.seed);
        self.seed += 1;
        self.losses.clear();
        self.training = Training::Starting(std::thread::spawn(move || first_step(&gpu, &buffer, seed)));
    }

    /// The points, written to the application's buffer with the application's queue.
    fn upload(&mut self) {
        let mut all = [Point::default(); POINTS];
        for (slot, point) in all.iter_mut().zip(&self.points) {
            *slot = *point;
        }
        self.gpu.queue().write_buffer(&self.buffer, 0, bytemuck::cast_slice(&all));
        self.changed = false;
    }

    pub fn points(&self) -> usize {
        self.points.len()
    }

    pub fn step(&self) -> Option<u64> {
        match &self.training {
            Training::Running(learner) => Some(learner.step()),
            _ => None,
        }
    }

    pub fn failure(&self) -> Option<&str> {
        match &self.training {
            Training::Failed(text) => Some(text),
            _ => None,
        }
    }

    /// Training's share of a frame, after the frame was handed over: never waits.
    pub fn train(&mut self) {
        if self.changed {
            self.upload();
        }
        if matches!(&self.training, Training::Starting(thread) if thread.is_finished()) {
            let started = std::mem::replace(&mut self.training, Training::Failed(String::new()));
            if let Training::Starting(thread) = started {
                self.training = match thread.join() {
                    Ok(Ok(learner)) => Training::Running(Box::new(learner)),
                    Ok(Err(err)) => Training::Failed(err.to_string()),
                    Err(_) => Training::Failed("the thread that takes the first step panicked".into()),
                };
            }
        }
        if let Training::Running(learner) = &mut self.training {
            let steps = if self.paused { 0 } else { Budget::default().steps };
            match learner.frame(10f32.powf(self.rate_exponent), Budget { steps, ..Budget::default() }) {
                Ok(news) => self.losses.extend(news.losses.iter().map(|l| l.1)),
                Err(err) => self.training = Training::Failed(err.to_string()),
            }
        }
    }

    pub fn show(&mut self, ui: &mut Ui) {
        egui::Panel::left("panel").exact_size(270.0).show(ui, |ui| self.panel(ui));
        egui::CentralPanel::default().show(ui, |ui| self.canvas(ui));
    }

    fn panel(&mut self, ui: &mut Ui) {
        ui.add_space(6.0);
        ui.heading("A network learns");
        ui.label("Paint points; it trains between the frames, on this window's device.");
        ui.separator();
        ui.horizontal(|ui| {
            ui.selectable_value(&mut self.class, 1.0, "paint orange");
            ui.selectable_value(&mut self.class, -1.0, "paint blue");
        });
        ui.horizontal(|ui| {
            for (name, points) in [("spirals", spirals as fn() -> Vec<Point>), ("rings", rings), ("none", Vec::new)] {
                if ui.button(name).clicked() {
                    (self.points, self.changed) = (points(), true);
                }
            }
        });
        ui.add(egui::Slider::new(&mut self.rate_exponent, -4.0..=-1.0).text("log10 of the rate"));
        ui.horizontal(|ui| {
            ui.checkbox(&mut self.paused, "pause");
            if ui.button("start again").clicked() {
                self.start();
            }
        });
        ui.separator();
        match &self.training {
            Training::Starting(_) => {
                ui.label("compiling kernels on a thread ..");
            }
            Training::Running(learner) => {
                ui.label(format!("step {}, {} points", learner.step(), self.points.len()));
                ui.label(format!("{:.0} frames/s, {:.0} steps/s", self.speed.0, self.speed.1));
                ui.label(format!("{:.1} MiB of the engine's on the device", learner.memory() as f32 / 1048576.0));
            }
            Training::Failed(text) => {
                ui.colored_label(Color32::LIGHT_RED, text);
            }
        }
        ui.separator();
        self.curve(ui);
    }

    /// The loss of every step on a logarithmic scale.
    fn curve(&self, ui: &mut Ui) {
        let (response, painter) = ui.allocate_painter(Vec2::new(ui.available_width(), 180.0), Sense::hover());
        let rect = response.rect.shrink(2.0);
        painter.rect_filled(rect, 3.0, ui.visuals().extreme_bg_color);
        let (top, decades) = (0.3f32, 4.0f32);
        let height = |loss: f32| rect.top() + (top - loss.max(1e-6).log10()) / decades * rect.height();
        for (exponent, text) in [(0, "1"), (-1, "0.1"), (-2, "0.01"), (-3, "0.001")] {
            let y = height(10f32.powi(exponent));
            painter.hline(rect.x_range(), y, Stroke::new(1.0, Color32::from_gray(60)));
            let font = FontId::proportional(10.0);
            painter.text(Pos2::new(rect.left() + 4.0, y), Align2::LEFT_BOTTOM, text, font, Color32::GRAY);
        }
        // One point a pixel, the mean of the steps that fall on it.
        let columns = (rect.width() as usize).min(self.losses.len());
        let line: Vec<Pos2> = (0..columns)
            .map(|i| {
                let steps = self.losses.len() * i / columns..self.losses.len() * (i + 1) / columns;
                let count = steps.len().max(1) as f32;
                let mean = self.losses[steps].iter().sum::<f32>() / count;
                let x = rect.left() + rect.width() * (i as f32 + 0.5) / columns as f32;
                Pos2::new(x, height(mean).clamp(rect.top(), rect.bottom()))
            })
            .collect();
        painter.line(line, Stroke::new(1.5, Color32::from_rgb(120, 200, 140)));
        let text = self.losses.last().map_or("loss".to_string(), |loss| format!("loss {loss:.4}"));
        painter.text(
            rect.right_top() + Vec2::new(-6.0, 4.0),
            Align2::RIGHT_TOP,
            text,
            FontId::proportional(12.0),
            Color32::WHITE,
        );
    }

    fn canvas(&mut self, ui: &mut Ui) {
        let side = ui.available_width().min(ui.available_height());
        let (response, painter) = ui.allocate_painter(Vec2::splat(side), Sense::drag());
        let rect = response.rect;
        self.field = rect;
        painter.rect_filled(rect, 0.0, Color32::from_gray(20));
        if let Training::Running(learner) = &self.training
            && let Some(field) = &learner.field
        {
            match self.pipeline.callback(field) {
                Ok(draw) => {
                    painter.add(egui_wgpu::Callback::new_paint_callback(rect, draw));
                }
                Err(err) => self.training = Training::Failed(err.to_string()),
            }
        }
        if response.is_pointer_button_down_on()
            && let Some(at) = response.interact_pointer_pos()
        {
            self.paint(rect, at);
        }
        for p in &self.points {
            let at = rect.center() + Vec2::new(p.x, p.y) * rect.size() / 2.0;
            let fill = if p.class > 0.0 { Color32::from_rgb(255, 176, 60) } else { Color32::from_rgb(90, 170, 255) };
            painter.circle(at, 4.0, fill, Stroke::new(1.0, Color32::BLACK));
        }
        painter.rect_stroke(rect, 0.0, Stroke::new(1.0, Color32::from_gray(90)), StrokeKind::Inside);
    }

    /// A point where the pointer is, if there is room and none right there.
    fn paint(&mut self, rect: Rect, at: Pos2) {
        let place = (at - rect.center()) / (rect.size() / 2.0);
        let near = |p: &Point| (Vec2::new(p.x, p.y) - place).length() < 0.03;
        if self.points.len() < POINTS && !self.points.iter().any(near) && rect.contains(at) {
            self.points.push(Point { x: place.x, y: place.y, class: self.class, there: 1.0 });
            self.changed = true;
        }
    }
}

fn on_curve(n: usize, class: f32, place: impl Fn(f32) -> (f32, f32)) -> impl Iterator<Item = Point> {
    let points: Vec<_> = (0..n).map(|i| place(i as f32 / n as f32)).collect();
    points.into_iter().map(move |(x, y)| Point { x, y, class, there: 1.0 })
}

fn spirals() -> Vec<Point> {
    let arm = |start: f32| {
        move |t: f32| {
            let (radius, angle) = (0.08 + 0.8 * t, start + 1.6 * TAU * t);
            (radius * angle.cos(), radius * angle.sin())
        }
    };
    on_curve(90, -1.0, arm(0.0)).chain(on_curve(90, 1.0, arm(TAU / 2.0))).collect()
}

fn rings() -> Vec<Point> {
    let ring = |radius: f32| move |t: f32| (radius * (TAU * t).cos(), radius * (TAU * t).sin());
    on_curve(40, 1.0, ring(0.3)).chain(on_curve(80, -1.0, ring(0.7))).collect()
}
