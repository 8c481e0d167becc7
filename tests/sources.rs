//! Parses src/capi: every export is a plain `#[no_mangle] pub extern "C" fn`
//! whose only statement calls the boundary.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use syn::{Attribute, Expr, Item, ItemFn, Stmt};

/// Exports that cannot fail answer without the boundary: they only name constants.
const CONSTANT: &[&str] = &["gmb_version", "gmb_version_string", "gmb_status_name", "gmb_status_string"];

fn is(attribute: &Attribute, name: &str) -> bool {
    attribute.path().is_ident(name)
}

fn calls_boundary(function: &ItemFn) -> bool {
    let [Stmt::Expr(Expr::Call(call), None)] = function.block.stmts.as_slice() else { return false };
    let Expr::Path(path) = call.func.as_ref() else { return false };
    path.path.is_ident("boundary") || path.path.is_ident("boundary_status")
}

fn complaints(name: &str, source: &str) -> Vec<String> {
    let file = syn::parse_file(source).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut found = Vec::new();
    for item in file.items {
        let Item::Fn(function) = item else { continue };
        let exported = function.attrs.iter().any(|a| is(a, "no_mangle") || is(a, "export_name"));
        if !exported {
            if function.sig.abi.is_some() {
                found.push(format!("{name}: {} has an ABI and no no_mangle", function.sig.ident));
            }
            continue;
        }
        let ident = function.sig.ident.to_string();
        let public = matches!(function.vis, syn::Visibility::Public(_));
        if !public || function.sig.abi.is_none() || !ident.starts_with("gmb_") {
            found.push(format!("{name}: {ident} is no `pub extern \"C\" fn gmb_...`"));
        }
        if !function.attrs.iter().any(|a| is(a, "doc")) {
            found.push(format!("{name}: {ident} has no comment"));
        }
        if !CONSTANT.contains(&ident.as_str()) && !calls_boundary(&function) {
            found.push(format!("{name}: {ident} does more than call the boundary"));
        }
    }
    found
}

#[test]
fn every_export_is_one_call_of_the_boundary() {
    let mut found = Vec::new();
    let mut files = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/capi")).unwrap() {
        let path = entry.unwrap().path();
        found.extend(complaints(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap()));
        files += 1;
    }
    assert!(files >= 6, "src/capi has moved");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn other_shapes_are_caught() {
    let bad = [
        r#"/** x */ #[no_mangle] pub extern "C" fn gmb_a() -> i32 { 0 }"#,
        r#"/** x */ #[no_mangle] pub extern "C" fn gmb_a() -> i32 { let x = 1; boundary(|| Ok(())) }"#,
        r#"/** x */ #[no_mangle] extern "C" fn gmb_a() -> i32 { boundary(|| Ok(())) }"#,
        r#"#[no_mangle] pub extern "C" fn gmb_a() -> i32 { boundary(|| Ok(())) }"#,
        r#"/** x */ #[no_mangle] pub extern "C" fn other() -> i32 { boundary(|| Ok(())) }"#,
        r#"/** x */ pub extern "C" fn gmb_a() -> i32 { boundary(|| Ok(())) }"#,
    ];
    for source in bad {
        assert!(!complaints("test", source).is_empty(), "{source}");
    }
    let good = r#"/** x */ #[no_mangle] pub extern "C" fn gmb_a() -> i32 { boundary(|| Ok(())) }"#;
    assert!(complaints("test", good).is_empty());
}
