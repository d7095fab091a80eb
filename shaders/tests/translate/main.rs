//! Every built-in kernel, in both forms of its parameters, through the back ends of every platform; and the rules that no
//! back end checks.

mod lints;
mod others;
mod text;
mod uniformity;

use naga::back::{hlsl, msl, spv};
use naga::valid::{ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};
use shadegrad_shaders::{KernelInfo, all, uniform_params};

/// A parsed and validated kernel, or why it is not one.
fn parse(source: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    let info = Validator::new(ValidationFlags::all(), shadegrad_shaders::capabilities())
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    Ok((module, info))
}

/// Runs `check` over every kernel, with its parameters as immediates and as a uniform, and reports all failures at once.
fn each_form(check: impl Fn(&KernelInfo, &Module, &ModuleInfo) -> Result<(), String>) {
    let mut failures = Vec::new();
    for info in all() {
        let uniform = uniform_params(&info.source);
        assert_eq!(uniform != *info.source, info.params_size > 0, "{}: the uniform form", info.name);
        let mut forms = vec![("immediates", info.source.as_ref())];
        if info.params_size > 0 {
            forms.push(("uniform", &uniform));
        }
        for (form, source) in forms {
            let result = parse(source).and_then(|(module, valid)| check(info, &module, &valid));
            if let Err(e) = result {
                failures.push(format!("{} ({form}): {e}", info.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn spirv(module: &Module, info: &ModuleInfo) -> Result<Vec<u32>, String> {
    let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into() };
    spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| e.to_string())
}

#[test]
fn every_kernel_becomes_spirv() {
    each_form(|_, module, info| {
        let words = spirv(module, info)?;
        if words.first() == Some(&0x0723_0203) { Ok(()) } else { Err("no SPIR-V header".into()) }
    });
}

#[test]
fn every_kernel_becomes_msl() {
    each_form(|_, module, info| {
        let options =
            msl::Options { lang_version: (2, 4), zero_initialize_workgroup_memory: false, ..msl::Options::default() };
        let (text, reflected) =
            msl::write_string(module, info, &options, &msl::PipelineOptions::default()).map_err(|e| e.to_string())?;
        for name in reflected.entry_point_names {
            let name = name.map_err(|e| e.to_string())?;
            if !text.contains(&name) {
                return Err(format!("{name} is not in the text"));
            }
        }
        Ok(())
    });
}

#[test]
fn every_kernel_becomes_hlsl() {
    each_form(|kernel, module, info| {
        let options = hlsl::Options {
            shader_model: if kernel.f16 { hlsl::ShaderModel::V6_2 } else { hlsl::ShaderModel::V6_0 },
            immediates_target: Some(hlsl::BindTarget { space: 2, ..hlsl::BindTarget::default() }),
            zero_initialize_workgroup_memory: false,
            ..hlsl::Options::default()
        };
        let pipeline = hlsl::PipelineOptions::default();
        let mut text = String::new();
        let reflected =
            hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| e.to_string())?;
        for name in reflected.entry_point_names {
            name.map_err(|e| e.to_string())?;
        }
        if text.contains("numthreads") { Ok(()) } else { Err("no compute entry point".into()) }
    });
}

#[test]
fn every_barrier_is_reached_by_the_whole_workgroup() {
    each_form(|_, module, _| {
        let findings = uniformity::findings(module);
        if findings.is_empty() { Ok(()) } else { Err(findings.join("; ")) }
    });
}

#[test]
fn the_table_of_kernels_is_sorted_and_described_truthfully() {
    let list = all();
    assert!(list.windows(2).all(|w| w[0].name < w[1].name), "all() is sorted by name without repetition");
    for info in list {
        let again = shadegrad_shaders::reflect(&info.name, &info.source).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again.hash, info.hash, "{}: hash", info.name);
        assert_eq!(again.fields, info.fields, "{}: fields", info.name);
        assert_eq!(again.access, info.access, "{}: access", info.name);
        assert_eq!(
            (again.workgroup_size, again.workgroup_bytes, again.params_size, again.subgroups, again.f16, again.int64),
            (info.workgroup_size, info.workgroup_bytes, info.params_size, info.subgroups, info.f16, info.int64),
            "{}",
            info.name
        );
    }
}

#[test]
fn generated_parameters_have_the_layout_of_the_shader() {
    use shadegrad_shaders::fill;
    let p = fill::FillF32Params { n4: 1, gx: 2, value: 3.0, ..Default::default() };
    let info = &fill::FILL_F32.info;
    assert_eq!(size_of_val(&p), info.params_size as usize);
    let bytes = bytemuck::bytes_of(&p);
    let word = |name: &str| {
        let at = info.fields.iter().find(|f| f.name == name).map(|f| f.offset as usize).expect("the field exists");
        <[u8; 4]>::try_from(&bytes[at..at + 4]).expect("four bytes")
    };
    assert_eq!(u32::from_le_bytes(word("gx")), 2);
    assert_eq!(f32::from_le_bytes(word("value")), 3.0);
}
