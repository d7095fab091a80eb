//! Draws the engine's tensor with the application's own pipeline: no copy, no read-back.

use egui_wgpu::{CallbackResources, CallbackTrait};
use shadegrad::{Result, Tensor, wgpu};

use crate::learner::SIDE;

/// The pipeline that draws a field.
pub struct FieldPipeline {
    device: wgpu::Device,
    pipeline: wgpu::RenderPipeline,
}

impl FieldPipeline {
    pub fn new(device: &wgpu::Device, format: wgpu::TextureFormat) -> Self {
        let text = format!("const SIDE: i32 = {SIDE};\n{}", include_str!("field.wgsl"));
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("field"),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("field"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("corner"),
                compilation_options: Default::default(),
                buffers: &[],
            },
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("colour"),
                compilation_options: Default::default(),
                targets: &[Some(format.into())],
            }),
            multiview_mask: None,
            cache: None,
        });
        Self { device: device.clone(), pipeline }
    }

    /// What egui calls when it comes to the field's place. The tensor must live until the frame is submitted.
    pub fn callback(&self, field: &Tensor) -> Result<DrawField> {
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("field"),
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(field.binding()?) }],
        });
        Ok(DrawField { pipeline: self.pipeline.clone(), group })
    }
}

/// One drawing of a field.
pub struct DrawField {
    pipeline: wgpu::RenderPipeline,
    group: wgpu::BindGroup,
}

impl CallbackTrait for DrawField {
    fn paint(&self, _: egui::PaintCallbackInfo, pass: &mut wgpu::RenderPass<'static>, _: &CallbackResources) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.draw(0..3, 0..1);
    }
}
