/* api.h - PUBLIC. Export, format-check and must-check attributes, with fallbacks for other
 * compilers, and the library's version.
 *
 * An installed header is read by C and C++ programs: it includes installed headers only, and parses
 * as C++17 too. tests/install.sh checks both.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_API_H
#define MR_CORE_API_H

/* The library is built with hidden visibility: only what carries MR_API is exported. */
#if defined(__GNUC__) || defined(__clang__)
#    define MR_API               __attribute__((visibility("default")))
#    define MR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#    define MR_NODISCARD         __attribute__((warn_unused_result))
#else
#    define MR_API
#    define MR_PRINTF(fmt, args)
#    define MR_NODISCARD
#endif

#ifdef __cplusplus
#    define MR_BEGIN_DECLS extern "C" {
#    define MR_END_DECLS   }
#else
#    define MR_BEGIN_DECLS
#    define MR_END_DECLS
#endif

MR_BEGIN_DECLS

/* "0.1.0 (commit)" of the libmixrank that the program runs with; static storage. Only the shared
 * library has it: the layers are not versioned one by one. */
MR_API const char *mr_library_version(void);

MR_END_DECLS

#endif
