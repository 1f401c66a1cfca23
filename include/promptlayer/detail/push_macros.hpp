// Macros of engines, windows.h, Qt, X11, Carbon and complex.h that would rewrite names in the headers below
// are set aside here and put back by pop_macros.hpp. No include guard: each header uses the pair around its
// own text.
#if defined(__clang__)
#pragma clang diagnostic push
// Arguments of the standard library's classes, `std::lock_guard` and others, are deduced.
#pragma clang diagnostic ignored "-Wctad-maybe-unsupported"
// A class whose functions are all inline has its virtual table in every file.
#pragma clang diagnostic ignored "-Wweak-vtables"
#endif
#pragma push_macro("Always")
#undef Always
#pragma push_macro("assume")
#undef assume
#pragma push_macro("Bool")
#undef Bool
#pragma push_macro("check")
#undef check
#pragma push_macro("checkf")
#undef checkf
#pragma push_macro("complex")
#undef complex
#pragma push_macro("CONST")
#undef CONST
#pragma push_macro("DELETE")
#undef DELETE
#pragma push_macro("emit")
#undef emit
#pragma push_macro("ensure")
#undef ensure
#pragma push_macro("ERROR")
#undef ERROR
#pragma push_macro("FALSE")
#undef FALSE
#pragma push_macro("far")
#undef far
#pragma push_macro("foreach")
#undef foreach
#pragma push_macro("GetCurrentTime")
#undef GetCurrentTime
#pragma push_macro("GetMessage")
#undef GetMessage
#pragma push_macro("GetObject")
#undef GetObject
#pragma push_macro("I")
#undef I
#pragma push_macro("IN")
#undef IN
#pragma push_macro("interface")
#undef interface
#pragma push_macro("max")
#undef max
#pragma push_macro("min")
#undef min
#pragma push_macro("near")
#undef near
#pragma push_macro("NO_ERROR")
#undef NO_ERROR
#pragma push_macro("None")
#undef None
#pragma push_macro("OPTIONAL")
#undef OPTIONAL
#pragma push_macro("OUT")
#undef OUT
#pragma push_macro("require")
#undef require
#pragma push_macro("SendMessage")
#undef SendMessage
#pragma push_macro("signals")
#undef signals
#pragma push_macro("slots")
#undef slots
#pragma push_macro("small")
#undef small
#pragma push_macro("Status")
#undef Status
#pragma push_macro("Success")
#undef Success
#pragma push_macro("TEXT")
#undef TEXT
#pragma push_macro("TRUE")
#undef TRUE
#pragma push_macro("unlikely")
#undef unlikely
#pragma push_macro("verify")
#undef verify
#pragma push_macro("verifyf")
#undef verifyf
#pragma push_macro("VOID")
#undef VOID
#pragma push_macro("Yield")
#undef Yield
