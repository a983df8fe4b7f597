//! What authors are told when they write `#[job]` wrong: the error points at the token that is wrong.

#[test]
fn errors_point_at_the_token() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/good_*.rs");
    cases.compile_fail("tests/ui/bad_*.rs");
}
