//! A check that every invocation of a workgroup reaches every barrier: a return, a break or a branch before it must not
//! depend on the invocation. naga accepts such kernels, and real devices hang on them or corrupt memory.
//!
//! The rules are those of WGSL's uniformity analysis, a little stricter on function calls and without its treatment of
//! derivatives: values loaded from read-only storage, uniforms and immediates at uniform indices are uniform, as are
//! `workgroup_id`, `workgroupUniformLoad` and what is computed from those; everything else is not.

use std::collections::HashSet;

use naga::{
    AddressSpace, Binding, Block, BuiltIn, Expression as E, Function, Handle, LocalVariable, Module, Statement as S,
    StorageAccess,
};

/// The barriers that part of a workgroup may miss, in words.
pub fn findings(module: &Module) -> Vec<String> {
    let mut out = Vec::new();
    for entry in &module.entry_points {
        let args: Vec<bool> = entry
            .function
            .arguments
            .iter()
            .map(|a| {
                let shared = BuiltIn::WorkGroupId;
                let group = [shared, BuiltIn::WorkGroupSize, BuiltIn::NumWorkGroups, BuiltIn::SubgroupSize];
                !matches!(&a.binding, Some(Binding::BuiltIn(b)) if group.contains(b))
            })
            .collect();
        Walk::run(module, &entry.function, args, false, &mut out);
    }
    out.sort();
    out.dedup();
    out
}

/// Ways out of a block that only some invocations take.
#[derive(Clone, Copy, Default)]
struct Exits {
    returns: bool,
    breaks: bool,
    continues: bool,
}

impl Exits {
    fn any(self) -> bool {
        self.returns || self.breaks || self.continues
    }
    fn join(&mut self, other: Self) {
        self.returns |= other.returns;
        self.breaks |= other.breaks;
        self.continues |= other.continues;
    }
}

struct Walk<'a> {
    module: &'a Module,
    function: &'a Function,
    /// Arguments that differ between invocations.
    args: Vec<bool>,
    /// Local variables that do.
    locals: HashSet<Handle<LocalVariable>>,
    /// Results of calls that do.
    results: HashSet<Handle<E>>,
    /// Whether the function's own result does.
    result: bool,
    found: Vec<String>,
}

impl<'a> Walk<'a> {
    /// Analyses a function until nothing changes; returns whether its result and its pointer arguments are not uniform.
    fn run(
        module: &'a Module,
        function: &'a Function,
        args: Vec<bool>,
        split: bool,
        out: &mut Vec<String>,
    ) -> (bool, Vec<bool>) {
        let mut walk = Walk {
            module,
            function,
            args,
            locals: HashSet::new(),
            results: HashSet::new(),
            result: false,
            found: Vec::new(),
        };
        loop {
            let before = (walk.locals.len(), walk.results.len(), walk.args.clone(), walk.result);
            walk.found.clear();
            walk.block(&function.body, split);
            if before == (walk.locals.len(), walk.results.len(), walk.args.clone(), walk.result) {
                break;
            }
        }
        out.append(&mut walk.found);
        (walk.result, walk.args)
    }

    fn varies(&self, e: Handle<E>) -> bool {
        let any = |list: &[Handle<E>]| list.iter().any(|e| self.varies(*e));
        match &self.function.expressions[e] {
            E::Literal(_)
            | E::Constant(_)
            | E::Override(_)
            | E::ZeroValue(_)
            | E::WorkGroupUniformLoadResult { .. } => false,
            E::GlobalVariable(_) | E::ArrayLength(_) => false,
            E::LocalVariable(v) => self.locals.contains(v),
            E::FunctionArgument(i) => self.args[*i as usize],
            E::CallResult(_) => self.results.contains(&e),
            E::Compose { components, .. } => any(components),
            E::Access { base, index } => any(&[*base, *index]),
            E::AccessIndex { base, .. } => self.varies(*base),
            E::Splat { value, .. } => self.varies(*value),
            E::Swizzle { vector, .. } => self.varies(*vector),
            E::Load { pointer } => {
                let shared = match self.root(*pointer) {
                    Root::Global(space) => match space {
                        AddressSpace::Uniform | AddressSpace::Immediate => true,
                        AddressSpace::Storage { access } => !access.contains(StorageAccess::STORE),
                        _ => false,
                    },
                    _ => true,
                };
                !shared || self.varies(*pointer)
            }
            E::Unary { expr, .. } | E::As { expr, .. } => self.varies(*expr),
            E::Binary { left, right, .. } => any(&[*left, *right]),
            E::Select { condition, accept, reject } => any(&[*condition, *accept, *reject]),
            E::Relational { argument, .. } => self.varies(*argument),
            E::Math { arg, arg1, arg2, arg3, .. } => {
                self.varies(*arg) || [arg1, arg2, arg3].into_iter().flatten().any(|e| self.varies(*e))
            }
            _ => true,
        }
    }

    fn root(&self, pointer: Handle<E>) -> Root {
        match &self.function.expressions[pointer] {
            E::Access { base, .. } | E::AccessIndex { base, .. } => self.root(*base),
            E::GlobalVariable(v) => Root::Global(self.module.global_variables[*v].space),
            E::LocalVariable(v) => Root::Local(*v),
            E::FunctionArgument(i) => Root::Argument(*i as usize),
            _ => Root::Other,
        }
    }

    /// The index expressions of a pointer: a store at a varying index makes the whole variable vary.
    fn index_varies(&self, pointer: Handle<E>) -> bool {
        match &self.function.expressions[pointer] {
            E::Access { base, index } => self.varies(*index) || self.index_varies(*base),
            E::AccessIndex { base, .. } => self.index_varies(*base),
            _ => false,
        }
    }

    fn taint(&mut self, pointer: Handle<E>) {
        match self.root(pointer) {
            Root::Local(v) => {
                self.locals.insert(v);
            }
            Root::Argument(i) => self.args[i] = true,
            Root::Global(_) | Root::Other => {}
        }
    }

    fn barrier(&mut self, what: &str, split: bool) {
        if split {
            let name = self.function.name.as_deref().unwrap_or("main");
            self.found.push(format!("{what} in {name} is not reached by the whole workgroup"));
        }
    }

    /// Walks a block entered by the whole workgroup, or by a part of it (`split`).
    fn block(&mut self, block: &Block, mut split: bool) -> Exits {
        let mut exits = Exits::default();
        for statement in block {
            let inner = self.statement(statement, split);
            exits.join(inner);
            split |= inner.any();
        }
        exits
    }

    fn statement(&mut self, statement: &S, split: bool) -> Exits {
        let mut exits = Exits::default();
        match statement {
            S::Block(b) => return self.block(b, split),
            S::If { condition, accept, reject } => {
                let split = split || self.varies(*condition);
                exits = self.block(accept, split);
                exits.join(self.block(reject, split));
            }
            S::Switch { selector, cases } => {
                let split = split || self.varies(*selector);
                for case in cases {
                    exits.join(self.block(&case.body, split));
                }
                exits.breaks = false; // leaves the switch only
            }
            S::Loop { body, continuing, break_if } => {
                let mut left = split;
                // The second round sees what the first made vary: invocations that have left the loop.
                for _ in 0..2 {
                    let mut round = self.block(body, left);
                    round.continues = false; // they meet again in the continuing block
                    let inside = left || round.any();
                    round.join(self.block(continuing, inside));
                    round.breaks |= break_if.is_some_and(|e| inside || self.varies(e));
                    left |= round.any();
                    exits.join(round);
                }
                exits.breaks = false; // they meet again behind the loop
            }
            S::Break => exits.breaks = split,
            S::Continue => exits.continues = split,
            S::Return { value } => {
                exits.returns = split;
                self.result |= split || value.is_some_and(|v| self.varies(v));
            }
            S::Store { pointer, value } if split || self.varies(*value) || self.index_varies(*pointer) => {
                self.taint(*pointer);
            }
            S::ControlBarrier(_) => self.barrier("a barrier", split),
            S::WorkGroupUniformLoad { .. } => self.barrier("workgroupUniformLoad", split),
            S::Call { function, arguments, result } => {
                let args = arguments.iter().map(|a| self.varies(*a)).collect();
                let callee = &self.module.functions[*function];
                let mut found = Vec::new();
                let (varies, after) = Walk::run(self.module, callee, args, split, &mut found);
                self.found.append(&mut found);
                for (arg, varies) in arguments.iter().zip(after) {
                    if varies {
                        self.taint(*arg);
                    }
                }
                if let Some(result) = result.filter(|_| varies) {
                    self.results.insert(result);
                }
            }
            _ => {}
        }
        exits
    }
}

enum Root {
    Global(AddressSpace),
    Local(Handle<LocalVariable>),
    Argument(usize),
    Other,
}

/// A kernel whose body is `body`, with the usual built-in values, a read and a written buffer and workgroup memory.
fn check(body: &str) -> bool {
    let text = format!(
        "struct P {{ n: u32 }}
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
var<immediate> p: P;
var<workgroup> w: array<u32, 64>;
fn pick(a: u32) -> u32 {{ if (a > 3u) {{ return 1u; }} return 2u; }}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>) {{
{body}
y[lid.x] = w[lid.x];
}}"
    );
    let (module, _) = crate::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    findings(&module).is_empty()
}

#[test]
fn the_uniformity_check_tells_good_from_bad() {
    let good = [
        "workgroupBarrier();",
        "if (wid.x >= p.n) { return; } workgroupBarrier();",
        "if (lid.x < p.n) { w[lid.x] = 1u; } workgroupBarrier();",
        "for (var s = 32u; s > 0u; s >>= 1u) { if (lid.x < s) { w[lid.x] += w[lid.x + s]; } workgroupBarrier(); }",
        "let n = x[wid.x]; for (var i = 0u; i < n; i++) { if (lid.x == i) { continue; } w[lid.x] = i; } workgroupBarrier();",
        "for (var i = lid.x; i < p.n; i += 64u) { w[lid.x] += x[i]; } workgroupBarrier();",
        "let n = workgroupUniformLoad(&w[0]); if (n > 2u) { workgroupBarrier(); }",
        "if (pick(wid.x) == 1u) { workgroupBarrier(); }",
    ];
    for body in good {
        assert!(check(body), "wrongly refused: {body}");
    }
    let bad = [
        "if (lid.x >= p.n) { return; } workgroupBarrier();",
        "if (lid.x == 0u) { workgroupBarrier(); }",
        "for (var i = lid.x; i < p.n; i += 64u) { workgroupBarrier(); }",
        "for (var i = 0u; i < p.n; i++) { workgroupBarrier(); if (x[lid.x] == i) { break; } }",
        "let n = w[0]; if (n > 2u) { workgroupBarrier(); }",
        "if (pick(lid.x) == 1u) { workgroupBarrier(); }",
        "var n = wid.x; if (lid.x == 3u) { n = 1u; } if (n == 1u) { workgroupBarrier(); }",
        "for (var i = 0u; i < p.n; i++) { if (lid.x == i) { continue; } workgroupBarrier(); }",
    ];
    for body in bad {
        assert!(!check(body), "wrongly accepted: {body}");
    }
}
