//! `#[job]` and `#[check]` of windlass-sdk. Use them through that crate.

mod arguments;
mod manifest;

use proc_macro::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{ItemFn, ReturnType, parse_macro_input};

/// Makes a function a job: `fn run(ctx: &Context) -> Result<(), E>`, or without a result.
///
/// Arguments become the plugin's manifest, which the operator's configuration goes over: `every = "30s"`, `continuous` or `once`, any
/// other key of a plugin's entry in snake case (`backoff_limit = 5`, `limits(memory = "64Mi", cpu_seconds = 10)`,
/// `health(failure_threshold = 5)`), `name` and `version` (by default the crate's), and `wants("http: https://…")`, which lists capabilities
/// that an operator may want to grant.
#[proc_macro_attribute]
pub fn job(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    expand_job(arguments.into(), &function).unwrap_or_else(|error| with_error(&error, &function)).into()
}

/// Makes a function the plugin's own health check: `fn check() -> Health`, or a result of one.
#[proc_macro_attribute]
pub fn check(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    expand_check(arguments.into(), &function).unwrap_or_else(|error| with_error(&error, &function)).into()
}

/// The error, and the function as it was: so that the author sees this one error and no other.
fn with_error(error: &syn::Error, function: &ItemFn) -> proc_macro2::TokenStream {
    let error = error.to_compile_error();
    quote!(#error #[allow(dead_code)] #function)
}

fn expand_job(arguments: proc_macro2::TokenStream, function: &ItemFn) -> syn::Result<proc_macro2::TokenStream> {
    let arguments = arguments::parse(arguments)?;
    refuse_modifiers(function)?;
    if function.sig.inputs.len() != 1 {
        return Err(syn::Error::new(function.sig.paren_token.span.join(), "a job takes one argument: `ctx: &Context`"));
    }
    let manifest = manifest::json(&arguments);
    let length = manifest.len();
    let bytes = proc_macro2::Literal::byte_string(manifest.as_bytes());
    let name = &function.sig.ident;
    let output = match &function.sig.output {
        ReturnType::Default => function.sig.ident.span(),
        ReturnType::Type(_, output) => output.span(),
    };
    let call = quote_spanned!(output=> ::windlass_sdk::IntoOutcome::into_outcome(#name(context)));
    Ok(quote! {
        #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
        #function

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            #[allow(dead_code)]
            fn is_a_job(context: &::windlass_sdk::Context) -> ::core::result::Result<(), ::windlass_sdk::Error> {
                #call
            }
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[used]
            #[unsafe(link_section = "windlass:manifest")]
            static MANIFEST: [u8; #length] = *#bytes;

            struct Job;

            impl ::windlass_sdk::__private::JobGuest for Job {
                fn run(
                    invocation: ::windlass_sdk::__private::WitInvocation,
                ) -> ::core::result::Result<(), ::windlass_sdk::__private::Failure> {
                    ::windlass_sdk::__private::execute(invocation, |context| #call)
                }
            }

            ::windlass_sdk::__private::export_job!(Job with_types_in ::windlass_sdk::__private::job_bindings);
        };
    })
}

fn expand_check(arguments: proc_macro2::TokenStream, function: &ItemFn) -> syn::Result<proc_macro2::TokenStream> {
    if !arguments.is_empty() {
        return Err(syn::Error::new(
            arguments.span(),
            "#[check] takes no arguments; how often it is called is `health(check_seconds = …)` of #[job]",
        ));
    }
    refuse_modifiers(function)?;
    if !function.sig.inputs.is_empty() {
        return Err(syn::Error::new(function.sig.inputs.span(), "a health check takes no arguments"));
    }
    let name = &function.sig.ident;
    let ReturnType::Type(_, output) = &function.sig.output else {
        return Err(syn::Error::new(function.sig.ident.span(), "a health check returns `Health`, or a result of it"));
    };
    let call = quote_spanned!(output.span()=> ::windlass_sdk::IntoHealth::into_health(#name()));
    Ok(quote! {
        #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
        #function

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            #[allow(dead_code)]
            fn is_a_check() -> ::windlass_sdk::Health {
                #call
            }
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Check;

            impl ::windlass_sdk::__private::CheckGuest for Check {
                fn check() -> ::windlass_sdk::__private::CheckReport {
                    ::windlass_sdk::__private::execute_check(|| #call)
                }
            }

            ::windlass_sdk::__private::export_check!(Check with_types_in ::windlass_sdk::__private::check_bindings);
        };
    })
}

fn refuse_modifiers(function: &ItemFn) -> syn::Result<()> {
    let signature = &function.sig;
    if let Some(asyncness) = &signature.asyncness {
        return Err(syn::Error::new(asyncness.span, "this cannot be async: the host runs other jobs while it waits"));
    }
    if !signature.generics.params.is_empty() {
        return Err(syn::Error::new(signature.generics.span(), "this cannot be generic: the host calls one function"));
    }
    Ok(())
}
