//! Buffers of an operation by name, once for every backend.

/// A buffer of a backend, as far as everybody may look into it.
#[allow(clippy::len_without_is_empty)] // no buffer is empty
pub trait Length {
    /// Number of elements, at least one.
    fn len(&self) -> usize;
}

impl<T> Length for Vec<T> {
    fn len(&self) -> usize {
        Vec::len(self)
    }
}

/// A length by itself, for checks without the buffer.
impl Length for usize {
    fn len(&self) -> usize {
        *self
    }
}

/// One buffer on two backends.
#[derive(Debug)]
pub struct Pair<X, Y> {
    /// On the backend under test.
    pub a: X,
    /// On the reference.
    pub b: Y,
}

impl<X: Length, Y: Length> Length for Pair<X, Y> {
    fn len(&self) -> usize {
        self.a.len()
    }
}

/// Declares the operands of an operation: a struct of borrowed buffers, generic over the backend's buffers of real numbers `F` and of
/// words `W`. A field is one of `Floats`, `Words` (read), `FloatsMut`, `WordsMut` (written), `OptionalFloats`, `OptionalWords`,
/// `OptionalFloatsMut` and `Size` (a number). The struct also gets `sides`: the operands of each backend of a cross-check.
macro_rules! operands {
    ($(#[$meta:meta])* pub struct $name:ident<F> { $($fields:tt)+ }) => {
        operands!(@declare [$(#[$meta])*] $name [F] [F] [FA FB] $($fields)+);
    };
    ($(#[$meta:meta])* pub struct $name:ident<F, W> { $($fields:tt)+ }) => {
        operands!(@declare [$(#[$meta])*] $name [F W] [F W] [FA FB WA WB] $($fields)+);
    };
    (@declare [$($meta:tt)*] $name:ident [$($generic:ident)+] $generics:tt $sided:tt
        $($(#[$field_meta:meta])* $field:ident: $kind:ident),+ $(,)?) => {
        $($meta)*
        pub struct $name<'a, $($generic),+> {
            $($(#[$field_meta])* pub $field: operands!(@type $kind 'a $generics),)+
        }
        operands!(@sides $name $sided $($field: $kind),+);
    };
    (@sides $name:ident [$FA:ident $FB:ident] $($field:ident: $kind:ident),+) => {
        impl<$FA, $FB> $name<'_, $crate::operands::Pair<$FA, $FB>> {
            /// The operands of each of the two backends.
            pub(crate) fn sides(&mut self) -> ($name<'_, $FA>, $name<'_, $FB>) {
                operands!(@split self $name $($field: $kind),+)
            }
        }
    };
    (@sides $name:ident [$FA:ident $FB:ident $WA:ident $WB:ident] $($field:ident: $kind:ident),+) => {
        impl<$FA, $FB, $WA, $WB> $name<'_, $crate::operands::Pair<$FA, $FB>, $crate::operands::Pair<$WA, $WB>> {
            /// The operands of each of the two backends.
            pub(crate) fn sides(&mut self) -> ($name<'_, $FA, $WA>, $name<'_, $FB, $WB>) {
                operands!(@split self $name $($field: $kind),+)
            }
        }
    };
    (@split $self:ident $name:ident $($field:ident: $kind:ident),+) => {{
        $(let $field = operands!(@pair $kind $self.$field);)+
        ($name { $($field: $field.0),+ }, $name { $($field: $field.1),+ })
    }};
    (@type Floats $a:lifetime [$F:ident $($W:ident)?]) => { &$a $F };
    (@type FloatsMut $a:lifetime [$F:ident $($W:ident)?]) => { &$a mut $F };
    (@type OptionalFloats $a:lifetime [$F:ident $($W:ident)?]) => { Option<&$a $F> };
    (@type OptionalFloatsMut $a:lifetime [$F:ident $($W:ident)?]) => { Option<&$a mut $F> };
    (@type Words $a:lifetime [$F:ident $W:ident]) => { &$a $W };
    (@type WordsMut $a:lifetime [$F:ident $W:ident]) => { &$a mut $W };
    (@type OptionalWords $a:lifetime [$F:ident $W:ident]) => { Option<&$a $W> };
    (@type Size $a:lifetime $generics:tt) => { usize };
    (@pair Floats $field:expr) => { (&$field.a, &$field.b) };
    (@pair Words $field:expr) => { (&$field.a, &$field.b) };
    (@pair FloatsMut $field:expr) => { (&mut $field.a, &mut $field.b) };
    (@pair WordsMut $field:expr) => { (&mut $field.a, &mut $field.b) };
    (@pair OptionalFloats $field:expr) => { $field.map(|pair| (&pair.a, &pair.b)).unzip() };
    (@pair OptionalWords $field:expr) => { $field.map(|pair| (&pair.a, &pair.b)).unzip() };
    (@pair OptionalFloatsMut $field:expr) => { $field.as_mut().map(|pair| (&mut pair.a, &mut pair.b)).unzip() };
    (@pair Size $field:expr) => { ($field, $field) };
}
pub(crate) use operands;

/// `require_lens!(operands, n: rewards, values; envs: next_value)`: each named buffer holds at least so many elements.
macro_rules! require_lens {
    ($operands:expr, $($needed:expr => $($field:ident),+);+ $(;)?) => {{
        $($($crate::shape::require_len(stringify!($field), $crate::operands::Length::len($operands.$field), $needed)?;)+)+
    }};
}
pub(crate) use require_lens;

#[cfg(test)]
mod tests {
    use super::Pair;
    use crate::error::Result;

    operands! {
        /// All kinds of fields.
        pub struct Everything<F, W> {
            /// Read.
            x: Floats,
            /// Read.
            indices: Words,
            /// Maybe read.
            mask: OptionalWords,
            /// Where.
            offset: Size,
            /// Written.
            y: FloatsMut,
            /// Maybe written.
            pre: OptionalFloatsMut,
        }
    }

    fn pair<T: Clone>(a: &[T], b: &[T]) -> Pair<Vec<T>, Vec<T>> {
        Pair { a: a.to_vec(), b: b.to_vec() }
    }

    #[test]
    fn each_side_gets_its_own_buffers() {
        let (x, indices, mask) = (pair(&[1.0], &[2.0]), pair(&[3], &[4]), pair(&[5], &[6]));
        let (mut y, mut pre) = (pair(&[0.0], &[0.0]), pair(&[0.0], &[0.0]));
        let mut both = Everything { x: &x, indices: &indices, mask: Some(&mask), offset: 7, y: &mut y, pre: Some(&mut pre) };
        let (a, b) = both.sides();
        a.y[0] = a.x[0] + f64::from(a.indices[0] + a.mask.unwrap()[0]);
        b.y[0] = b.x[0] + f64::from(b.indices[0] + b.mask.unwrap()[0]);
        a.pre.unwrap()[0] = a.offset as f64;
        assert_eq!((b.offset, b.pre.map(|pre| pre.len())), (7, Some(1)));
        assert_eq!(([y.a[0], y.b[0]], [pre.a[0], pre.b[0]]), ([9.0, 12.0], [7.0, 0.0]));
    }

    #[test]
    fn a_short_buffer_is_named() {
        let check = |operands: &Everything<'_, Vec<f64>, Vec<u32>>| -> Result<()> {
            require_lens!(operands, 1 => x, y; 2 => indices);
            Ok(())
        };
        let (x, indices, mut y) = (vec![0.0], vec![0], vec![0.0]);
        let operands = Everything { x: &x, indices: &indices, mask: None, offset: 0, y: &mut y, pre: None };
        let error = check(&operands).unwrap_err().to_string();
        assert!(error.starts_with("indices: expected at least 2"), "{error}");
    }
}
