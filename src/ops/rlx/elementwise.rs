//! Chains of functions of one, two and three elements.

use super::function::Function;
use crate::error::{ErrorKind, nearest};
use crate::mir::{self, Comparison, expr::Ref};
use crate::ops::formula::Formula;
use crate::ops::{Attrs, Op, Operands, Tolerance, tools};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};

/// A chain of steps over operands that broadcast by NumPy's rule; the last one is the result.
///
/// A step is a name and its arguments: `in` is operand n, `sn` step n, anything else a number. Names
/// are RLX's activations, its functions of two arguments (`Add Sub Mul Div Max Min Pow Mod BitAnd BitOr
/// BitXor Shl Shr`), its comparisons (`Eq Ne Lt Le Gt Ge`), `Where`, and `Cast:` with a type.
///
/// `Max` and `Min` of NaN are NaN; `Mod` has the dividend's sign; bits of floats are those of their
/// 32-bit integer parts; a boolean among numbers is 0 or 1; for `Where`, everything but 0 is true.
#[derive(Clone, Debug, PartialEq)]
pub struct Elementwise {
    steps: Vec<Step>,
    /// For every operand, how many elements it repeats (0: it is as large as the result).
    modulus: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Step {
    kind: Kind,
    args: Vec<Arg>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Arg {
    Operand(usize),
    Step(usize),
    Number(f64),
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Function(Function),
    Arithmetic(Arithmetic),
    Compare(Comparison),
    Where,
    Cast(DType),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Pow,
    Mod,
    BitAnd,
    BitOr,
    BitXor,
    Shl,
    Shr,
}

const ARITHMETIC: [(&str, Arithmetic); 13] = [
    ("Add", Arithmetic::Add),
    ("Sub", Arithmetic::Sub),
    ("Mul", Arithmetic::Mul),
    ("Div", Arithmetic::Div),
    ("Max", Arithmetic::Max),
    ("Min", Arithmetic::Min),
    ("Pow", Arithmetic::Pow),
    ("Mod", Arithmetic::Mod),
    ("BitAnd", Arithmetic::BitAnd),
    ("BitOr", Arithmetic::BitOr),
    ("BitXor", Arithmetic::BitXor),
    ("Shl", Arithmetic::Shl),
    ("Shr", Arithmetic::Shr),
];

const COMPARISONS: [(&str, Comparison); 6] = [
    ("Eq", Comparison::Equal),
    ("Ne", Comparison::NotEqual),
    ("Lt", Comparison::Less),
    ("Le", Comparison::LessEqual),
    ("Gt", Comparison::Greater),
    ("Ge", Comparison::GreaterEqual),
];

impl Arithmetic {
    /// Whether it works on bits, and so on integers only.
    fn on_bits(self) -> bool {
        use Arithmetic::*;
        matches!(self, BitAnd | BitOr | BitXor | Shl | Shr)
    }
}

impl Step {
    fn parse(text: &str, before: usize) -> Result<Step, ErrorKind> {
        let wrong = |what: String| ErrorKind::wrong(format!("step {before} (\"{text}\"): {what}"));
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let found = |table: &[(&str, Arithmetic)]| table.iter().find(|row| row.0 == name).map(|row| row.1);
        let (kind, count) = if let Some(function) = Function::named(name) {
            (Kind::Function(function), 1)
        } else if let Some(arithmetic) = found(&ARITHMETIC) {
            (Kind::Arithmetic(arithmetic), 2)
        } else if let Some((_, comparison)) = COMPARISONS.iter().find(|row| row.0 == name) {
            (Kind::Compare(*comparison), 2)
        } else if name == "Where" {
            (Kind::Where, 3)
        } else if let Some(to) = name.strip_prefix("Cast:").and_then(DType::from_name) {
            (Kind::Cast(to), 1)
        } else {
            let kind = ErrorKind::unsupported(format!("step {before}: \"{name}\" is not known"));
            return Err(match nearest(name, ARITHMETIC.iter().map(|row| row.0)) {
                Some(near) => kind.help(format!("did you mean \"{near}\"?")),
                None => kind,
            });
        };
        let arg = |word: &str| {
            let index = |prefix: char| word.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
            match (index('i'), index('s')) {
                (Some(n), _) => Ok(Arg::Operand(n)),
                (_, Some(n)) if n < before => Ok(Arg::Step(n)),
                (_, Some(n)) => Err(wrong(format!("step {n} is not before it"))),
                _ => word.parse().map(Arg::Number).map_err(|_| wrong(format!("what is \"{word}\"?"))),
            }
        };
        let args = words.map(arg).collect::<Result<Vec<_>, _>>()?;
        if args.len() != count {
            return Err(wrong(format!("it must have {count} arguments")));
        }
        Ok(Step { kind, args })
    }

    /// Types of the arguments as the step takes them, and of its result. `None` is a number's type.
    fn types(&self, args: &[Option<DType>]) -> Result<(Vec<DType>, DType), ErrorKind> {
        let wrong = |ty: DType| ErrorKind::unsupported(format!("{:?} of {ty}", self.kind));
        let common = |args: &[Option<DType>]| {
            let numbers = args.iter().flatten().copied().filter(|&t| t != DType::Bool);
            let mut numbers = numbers.collect::<Vec<_>>();
            numbers.dedup();
            match numbers[..] {
                [] => Ok(DType::F32),
                [one] => Ok(one),
                [a, b, ..] => Err(ErrorKind::wrong(format!("element types differ: {a} and {b}"))),
            }
        };
        match self.kind {
            Kind::Function(_) => match common(args)? {
                ty if ty.is_float() => Ok((vec![ty], ty)),
                ty => Err(wrong(ty)),
            },
            Kind::Arithmetic(Arithmetic::Pow) => match common(args)? {
                ty if ty.is_float() => Ok((vec![ty; 2], ty)),
                ty => Err(wrong(ty)),
            },
            Kind::Arithmetic(_) => {
                let ty = common(args)?;
                Ok((vec![ty; 2], ty))
            }
            Kind::Compare(_) => {
                let ty = common(args)?;
                Ok((vec![ty; 2], DType::Bool))
            }
            Kind::Where => {
                let both = args[1..].iter().all(|t| *t == Some(DType::Bool));
                let ty = if both { DType::Bool } else { common(&args[1..])? };
                Ok((vec![args[0].unwrap_or(DType::F32), ty, ty], ty))
            }
            Kind::Cast(to) => Ok((vec![args[0].unwrap_or(DType::F32)], to)),
        }
    }
}

impl Elementwise {
    /// For every step, the types that its arguments are taken in and that of its result.
    fn types(&self, operands: &[DType]) -> Result<Vec<(Vec<DType>, DType)>, ErrorKind> {
        let mut types: Vec<(Vec<DType>, DType)> = vec![];
        for step in &self.steps {
            let arg = |arg: &Arg| match *arg {
                Arg::Operand(n) => operands.get(n).copied().map(Some).ok_or_else(|| {
                    ErrorKind::wrong(format!("a step reads operand {n}, and there are {}", operands.len()))
                }),
                Arg::Step(n) => Ok(Some(types[n].1)),
                Arg::Number(_) => Ok(None),
            };
            let args = step.args.iter().map(arg).collect::<Result<Vec<_>, _>>()?;
            types.push(step.types(&args)?);
        }
        Ok(types)
    }
}

impl Op for Elementwise {
    const NAME: &'static str = "rlx:Elementwise";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let texts = attrs.texts("steps")?.unwrap_or_default();
        if texts.is_empty() {
            return Err(ErrorKind::wrong("attribute \"steps\" is missing or empty"));
        }
        let steps = texts.iter().enumerate().map(|(i, text)| Step::parse(text, i));
        Ok(Elementwise {
            steps: steps.collect::<Result<_, _>>()?,
            modulus: attrs.ints("modulus")?.unwrap_or_default(),
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let operands = inputs.types()?;
        let dtypes: Vec<_> = operands.iter().map(|t| t.dtype).collect();
        let dtype = self.types(&dtypes)?.pop().map_or(DType::F32, |(_, ty)| ty);
        let mut dims = vec![];
        for ty in &operands {
            dims = tools::broadcast_dims(&dims, &ty.dims)?;
        }
        for (i, (ty, &modulus)) in operands.iter().zip(&self.modulus).enumerate() {
            let own = &ty.dims[ty.dims.iter().take_while(|&&d| d == 1).count()..];
            let fits = dims.ends_with(own) && ty.elements() as i64 == modulus;
            if modulus > 1 && !fits {
                let kind = ErrorKind::unsupported(format!("operand {i} ({ty}) repeats every {modulus} elements"));
                return Err(kind.help("only the last axes of the result may repeat"));
            }
        }
        Ok(vec![tools::sized(dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let operands: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
        let dtypes: Vec<_> = operands.iter().map(|t| t.ty().dtype).collect();
        let Ok(types) = self.types(&dtypes) else { return vec![] };
        let dims = &outputs[0].dims;
        let count = outputs[0].elements();
        let spread = |t: &Tensor| {
            let (all, mut values) = (t.f64s(), Vec::with_capacity(count));
            for_each_index(dims, |index| values.push(all[tools::broadcast_index(index, t.dims())]));
            Tensor::from_f64s(Type::new(t.ty().dtype, [count]), values)
        };
        let operands: Vec<_> = operands.into_iter().map(spread).collect();
        // Floats are kept in 64 bits between the steps; integers in their type.
        let kept = |dtype: DType| if dtype.is_float() { DType::F64 } else { dtype };
        let mut steps: Vec<Tensor> = vec![];
        for (step, (taken, result)) in self.steps.iter().zip(types) {
            let args = step.args.iter().zip(taken).map(|(arg, dtype)| {
                let ty = Type::new(kept(dtype), [count]);
                match *arg {
                    Arg::Operand(n) => Tensor::from_f64s(ty, operands[n].f64s()),
                    Arg::Step(n) => Tensor::from_f64s(ty, steps[n].f64s()),
                    Arg::Number(v) => Tensor::from_f64s(ty, std::iter::repeat_n(v, count)),
                }
            });
            let args: Vec<_> = args.collect();
            steps.push(apply(&step.kind, &args, Type::new(kept(result), [count])));
        }
        let last = steps.pop().map_or(vec![], |t| t.f64s());
        vec![Tensor::from_f64s(outputs[0].clone(), last)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let operands: Vec<_> = inputs.iter().copied().flatten().collect();
        let dtypes: Vec<_> = operands.iter().map(|&v| mir.ty(v).dtype).collect();
        let Ok(types) = self.types(&dtypes) else { return vec![] };
        let mut f = Formula::new(DType::F32);
        let mut steps: Vec<Ref> = vec![];
        for (step, (taken, _)) in self.steps.iter().zip(&types) {
            let mut args = vec![];
            for (arg, &dtype) in step.args.iter().zip(taken) {
                f.set_dtype(dtype);
                let (found, value) = match *arg {
                    Arg::Operand(n) => (dtypes[n], f.operand(n)),
                    Arg::Step(n) => (types[n].1, steps[n]),
                    Arg::Number(v) => (dtype, f.lit(v)),
                };
                args.push(if found == dtype { value } else { f.cast(dtype, value) });
            }
            steps.push(write(&mut f, &step.kind, &args, taken));
        }
        let Some(&last) = steps.last() else { return vec![] };
        // An operand that no step reads still has its part in the shape.
        vec![mir.map(f.finish(last), &operands)]
    }
}

/// A step by its definition, on arguments of the same number of elements.
fn apply(kind: &Kind, args: &[Tensor], ty: Type) -> Tensor {
    let [floats, ints] = [args[0].ty().dtype.is_float(), !args[0].ty().dtype.is_float()];
    let pairs = || args[0].f64s().into_iter().zip(args[1].f64s());
    match kind {
        Kind::Function(f) => Tensor::from_f64s(ty, args[0].f64s().into_iter().map(|v| f.apply(v))),
        Kind::Arithmetic(op) if floats && !op.on_bits() => {
            let op = *op;
            Tensor::from_f64s(ty, pairs().map(|(a, b)| on_floats(op, a, b)))
        }
        Kind::Arithmetic(op) => {
            let narrow = |t: &Tensor| {
                let as_ints = if ints { t.ty().dtype } else { DType::I32 };
                Tensor::from_f64s(t.ty().with_dtype(as_ints), t.f64s()).ints()
            };
            let (a, b) = (narrow(&args[0]), narrow(&args[1]));
            let bits = if ints { ty.dtype.bytes() as i64 * 8 } else { 32 };
            let values: Vec<_> = a.into_iter().zip(b).map(|(a, b)| on_ints(*op, bits, a, b)).collect();
            match floats {
                true => Tensor::from_f64s(ty, values.into_iter().map(|v| f64::from(v as i32))),
                false => Tensor::from_ints(ty, values),
            }
        }
        Kind::Compare(op) => {
            let holds = |(a, b): (f64, f64)| op.holds(a.partial_cmp(&b));
            Tensor::from_f64s(ty, pairs().map(|pair| f64::from(u8::from(holds(pair)))))
        }
        Kind::Where => {
            let chosen = args[0].f64s().into_iter().zip(args[1].f64s()).zip(args[2].f64s());
            Tensor::from_f64s(ty, chosen.map(|((c, a), b)| if c != 0.0 { a } else { b }))
        }
        Kind::Cast(to) => {
            let cast = Tensor::from_f64s(args[0].ty().with_dtype(*to), args[0].f64s());
            Tensor::from_f64s(ty, cast.f64s())
        }
    }
}

fn on_floats(op: Arithmetic, a: f64, b: f64) -> f64 {
    match op {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div => a / b,
        Arithmetic::Pow => a.powf(b),
        Arithmetic::Mod => a % b,
        Arithmetic::Max if a.is_nan() || a > b => a,
        Arithmetic::Min if a.is_nan() || a < b => a,
        _ => b,
    }
}

fn on_ints(op: Arithmetic, bits: i64, a: i64, b: i64) -> i64 {
    let shift = b.clamp(0, 63) as u32;
    match op {
        Arithmetic::Add => a.wrapping_add(b),
        Arithmetic::Sub => a.wrapping_sub(b),
        Arithmetic::Mul => a.wrapping_mul(b),
        Arithmetic::Div => a.checked_div(b).unwrap_or(if b == 0 { 0 } else { a }),
        Arithmetic::Mod => a.checked_rem(b).unwrap_or(0),
        Arithmetic::Max => a.max(b),
        Arithmetic::Min => a.min(b),
        Arithmetic::Pow => a,
        Arithmetic::BitAnd => a & b,
        Arithmetic::BitOr => a | b,
        Arithmetic::BitXor => a ^ b,
        Arithmetic::Shl if b >= bits => 0,
        Arithmetic::Shl => a << shift,
        Arithmetic::Shr => a >> shift,
    }
}

/// A step as an expression, on arguments of the types that it takes.
fn write(f: &mut Formula, kind: &Kind, args: &[Ref], taken: &[DType]) -> Ref {
    let dtype = taken[0];
    f.set_dtype(dtype);
    match kind {
        Kind::Function(function) => function.expand(f, args[0]),
        Kind::Arithmetic(op) => {
            let (mut a, mut b) = (args[0], args[1]);
            let turn = op.on_bits() && dtype.is_float();
            if turn {
                (a, b) = (f.cast(DType::I32, a), f.cast(DType::I32, b));
            }
            let result = match op {
                Arithmetic::Add => f.add(a, b),
                Arithmetic::Sub => f.sub(a, b),
                Arithmetic::Mul => f.mul(a, b),
                Arithmetic::Div => f.div(a, b),
                Arithmetic::Max => f.max(a, b),
                Arithmetic::Min => f.min(a, b),
                Arithmetic::Pow => f.pow(a, b),
                Arithmetic::Mod => f.rem(a, b),
                Arithmetic::BitAnd => f.and(a, b),
                Arithmetic::BitOr => f.or(a, b),
                Arithmetic::BitXor => f.xor(a, b),
                Arithmetic::Shl => f.shl(a, b),
                Arithmetic::Shr => f.shr(a, b),
            };
            if turn { f.cast(dtype, result) } else { result }
        }
        Kind::Compare(op) => match op {
            Comparison::Equal => f.equal(args[0], args[1]),
            Comparison::NotEqual => f.not_equal(args[0], args[1]),
            Comparison::Less => f.less(args[0], args[1]),
            Comparison::LessEqual => f.less_equal(args[0], args[1]),
            Comparison::Greater => f.greater(args[0], args[1]),
            Comparison::GreaterEqual => f.greater_equal(args[0], args[1]),
        },
        Kind::Where => {
            let condition = match dtype {
                DType::Bool => args[0],
                _ => {
                    let zero = f.lit(0.0);
                    f.not_equal(args[0], zero)
                }
            };
            f.select(condition, args[1], args[2])
        }
        Kind::Cast(to) => f.cast(*to, args[0]),
    }
}
