//! An egui interface on wgpu in which a network trains live: on the interface's own device, in its frame loop, from its
//! own buffer of points, its decision field drawn from the engine's memory. See docs/embedding.md.
//!
//! `--frames N` runs N frames by itself, prints what it measured and ends with an error unless the interface stayed
//! responsive (after it, `--times` lets the time between frames decide, too); `--screenshot FILE` keeps the last frame as a PNG.

mod check;
mod field;
mod interface;
mod learner;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use egui_wgpu::{Renderer, RendererOptions, ScreenDescriptor};
use shadegrad::{Gpu, Options, wgpu};
use winit::application::ApplicationHandler;
use winit::dpi::LogicalSize;
use winit::event::WindowEvent;
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop};
use winit::window::{Window, WindowId};

use check::Check;
use interface::Interface;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "shadegrad-window [--frames N [--times]] [--screenshot FILE.png]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut app = App::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if let ("--times", Some(check)) = (arg.as_str(), &mut app.check) {
            check.times = true;
            continue;
        }
        match (arg.as_str(), args.next()) {
            ("--frames", Some(n)) => app.check = Some(Check::new(n.parse().map_err(|_| USAGE)?)),
            ("--screenshot", Some(file)) => app.screenshot = Some(file.into()),
            _ => return Err(USAGE.into()),
        }
    }
    let event_loop = EventLoop::new()?;
    event_loop.set_control_flow(ControlFlow::Poll);
    event_loop.run_app(&mut app)?;
    if let Some(err) = app.failed {
        return Err(err);
    }
    if let (Some(check), Some(shell)) = (&app.check, &app.shell) {
        let (text, wrong) = check.report(&shell.interface);
        println!("{text}");
        if !wrong.is_empty() {
            return Err(wrong.join("; ").into());
        }
    }
    Ok(())
}

#[derive(Default)]
struct App {
    shell: Option<Shell>,
    check: Option<Check>,
    screenshot: Option<PathBuf>,
    failed: Option<Box<dyn Error>>,
}

impl App {
    fn end(&mut self, event_loop: &ActiveEventLoop, result: Result<()>) {
        if let Err(err) = result {
            self.failed = Some(err);
        }
        event_loop.exit();
    }

    /// One frame; whether it was the last.
    fn frame(&mut self) -> Result<bool> {
        let Some(shell) = &mut self.shell else { return Ok(false) };
        let events = self.check.as_mut().map_or(Vec::new(), |check| check.events(&shell.interface));
        if !shell.draw(events, None)? {
            return Ok(false);
        }
        let over = self.check.as_mut().is_some_and(|check| check.drawn(&mut shell.interface));
        if let (true, Some(file)) = (over, &self.screenshot) {
            shell.draw(Vec::new(), Some(file))?;
        }
        Ok(over)
    }
}

impl ApplicationHandler for App {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.shell.is_none() {
            match Shell::open(event_loop) {
                Ok(shell) => {
                    shell.window.request_redraw();
                    self.shell = Some(shell);
                }
                Err(err) => self.end(event_loop, Err(err)),
            }
        }
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        let Some(shell) = &mut self.shell else { return };
        let _ = shell.input.on_window_event(&shell.window, &event);
        match event {
            WindowEvent::CloseRequested => self.end(event_loop, Ok(())),
            WindowEvent::Resized(size) => shell.resize(size.width, size.height),
            WindowEvent::RedrawRequested => {
                shell.window.request_redraw();
                match self.frame() {
                    Ok(false) => {}
                    Ok(true) => self.end(event_loop, Ok(())),
                    Err(err) => self.end(event_loop, Err(err)),
                }
            }
            _ => {}
        }
    }
}

/// The window, its device, and what is drawn with it.
struct Shell {
    window: Arc<Window>,
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    device: wgpu::Device,
    queue: wgpu::Queue,
    egui: egui::Context,
    input: egui_winit::State,
    renderer: Renderer,
    interface: Interface,
    /// When the panel's speeds were last worked out, and frames and steps since.
    counted: (Instant, u32, usize),
}

impl Shell {
    fn open(event_loop: &ActiveEventLoop) -> Result<Self> {
        let attributes =
            Window::default_attributes().with_title("shadegrad").with_inner_size(LogicalSize::new(960, 680));
        let window = Arc::new(event_loop.create_window(attributes)?);
        // The application opens the device, for its surface ..
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let surface = instance.create_surface(window.clone())?;
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
            compatible_surface: Some(&surface),
            ..Default::default()
        }))?;
        let options = Options::default();
        let (required_features, required_limits) = Gpu::wanted(&adapter, &options);
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_features,
            required_limits,
            ..Default::default()
        }))?;
        // .. and the engine is a guest on it.
        let gpu = Gpu::from_wgpu(device.clone(), queue.clone(), &options);
        let lost = gpu.clone();
        device.set_device_lost_callback(move |reason, text| lost.report_lost(&format!("{reason:?}: {text}")));

        let size = window.inner_size();
        let mut config = surface
            .get_default_config(&adapter, size.width.max(1), size.height.max(1))
            .ok_or("the adapter cannot draw to this window")?;
        // egui blends in gamma space.
        let formats = surface.get_capabilities(&adapter).formats;
        config.format = formats.iter().copied().find(|f| !f.is_srgb()).unwrap_or(config.format);
        surface.configure(&device, &config);
        let egui = egui::Context::default();
        egui.set_theme(egui::Theme::Dark);
        let input = egui_winit::State::new(egui.clone(), egui::ViewportId::ROOT, &window, None, None, None);
        Ok(Self {
            renderer: Renderer::new(&device, config.format, RendererOptions::default()),
            interface: Interface::new(gpu, config.format),
            window,
            surface,
            config,
            device,
            queue,
            egui,
            input,
            counted: (Instant::now(), 0, 0),
        })
    }

    fn resize(&mut self, width: u32, height: u32) {
        (self.config.width, self.config.height) = (width.max(1), height.max(1));
        self.surface.configure(&self.device, &self.config);
    }

    /// Draws a frame to the window, or to a file, and lets the network train; whether a frame was drawn.
    fn draw(&mut self, events: Vec<egui::Event>, file: Option<&PathBuf>) -> Result<bool> {
        use wgpu::CurrentSurfaceTexture::{Lost, Outdated, Suboptimal, Success};
        let mut presented = None;
        let texture = if file.is_some() {
            self.device.create_texture(&wgpu::TextureDescriptor {
                label: Some("screenshot"),
                size: wgpu::Extent3d { width: self.config.width, height: self.config.height, depth_or_array_layers: 1 },
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: self.config.format,
                usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
                view_formats: &[],
            })
        } else {
            match self.surface.get_current_texture() {
                Success(frame) | Suboptimal(frame) => presented.insert(frame).texture.clone(),
                Outdated | Lost => {
                    self.surface.configure(&self.device, &self.config);
                    return Ok(false);
                }
                // Not seen, or not now.
                _ => return Ok(false),
            }
        };
        let mut raw = self.input.take_egui_input(&self.window);
        raw.events.extend(events);
        let interface = &mut self.interface;
        let mut output = self.egui.run_ui(raw, |ui| interface.show(ui));
        self.input.handle_platform_output(&self.window, output.platform_output);
        for (id, deltas) in &output.textures_delta.set {
            for delta in deltas {
                self.renderer.update_texture(&self.device, &self.queue, *id, delta);
            }
        }
        let jobs = self.egui.tessellate(output.shapes, output.pixels_per_point);
        let screen = ScreenDescriptor {
            size_in_pixels: [self.config.width, self.config.height],
            pixels_per_point: output.pixels_per_point,
        };
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut commands = self.renderer.update_buffers(&self.device, &self.queue, &mut encoder, &jobs, &screen);
        {
            let view = texture.create_view(&Default::default());
            let mut pass = encoder
                .begin_render_pass(&wgpu::RenderPassDescriptor {
                    label: Some("egui"),
                    color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                        view: &view,
                        depth_slice: None,
                        resolve_target: None,
                        ops: wgpu::Operations::default(),
                    })],
                    ..Default::default()
                })
                .forget_lifetime();
            self.renderer.render(&mut pass, &jobs, &screen);
        }
        commands.push(encoder.finish());
        self.queue.submit(commands);
        if let Some(frame) = presented {
            self.queue.present(frame);
        }
        for id in &output.textures_delta.free {
            self.renderer.free_texture(id);
        }
        output.textures_delta.clear();
        if let Some(file) = file {
            save(&self.device, &self.queue, &texture, file)?;
            return Ok(true);
        }
        // The frame is on its way; what follows is for the next one.
        self.interface.train();
        self.count();
        Ok(true)
    }

    fn count(&mut self) {
        let (since, frames, steps) = &mut self.counted;
        *frames += 1;
        let seconds = since.elapsed().as_secs_f32();
        if seconds > 0.5 {
            let now = self.interface.losses.len();
            self.interface.speed = (*frames as f32 / seconds, now.saturating_sub(*steps) as f32 / seconds);
            self.counted = (Instant::now(), 0, now);
        }
    }
}

/// Writes a texture of four bytes a pixel to a PNG file. Waits for the device.
fn save(device: &wgpu::Device, queue: &wgpu::Queue, texture: &wgpu::Texture, file: &PathBuf) -> Result<()> {
    let (width, height) = (texture.width(), texture.height());
    let row = (4 * width).next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("screenshot"),
        size: u64::from(row * height),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_texture_to_buffer(
        texture.as_image_copy(),
        wgpu::TexelCopyBufferInfo {
            buffer: &buffer,
            layout: wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(row), rows_per_image: None },
        },
        texture.size(),
    );
    queue.submit([encoder.finish()]);
    buffer.map_async(wgpu::MapMode::Read, .., |_| {});
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let bytes = buffer.slice(..).get_mapped_range()?;
    let swapped = matches!(texture.format(), wgpu::TextureFormat::Bgra8Unorm | wgpu::TextureFormat::Bgra8UnormSrgb);
    let image = image::RgbImage::from_fn(width, height, |x, y| {
        let at = (y * row + 4 * x) as usize;
        let [a, g, b] = [bytes[at], bytes[at + 1], bytes[at + 2]];
        image::Rgb(if swapped { [b, g, a] } else { [a, g, b] })
    });
    Ok(image.save(file)?)
}
