/* error.h - PUBLIC. One status to branch on, one message to read.
 *
 *     mr_error err = {0};
 *     if (mr_bundle_open(&bundle, path, NULL, &err) != MR_OK)
 *         fprintf(stderr, "mixrank: %s\n", err.message);
 *
 * A function that can fail returns mr_status and takes an mr_error that the caller owns, usually on
 * its stack: nothing to free, and it works when memory is out. NULL is allowed where only the
 * status matters. The error is untouched on success. Callers branch on the status and never parse
 * the message, which names the thing, what was found, what was expected and the likely fix.
 * Libraries return errors; programs print or log them, once.
 * Threads: an mr_error belongs to one thread at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_ERROR_H
#define MR_CORE_ERROR_H

#include <stddef.h>

#include "core/api.h"

MR_BEGIN_DECLS

/* One row per kind: enum name, gRPC status code (grpc/statuscodes), worth retrying, short text.
 * The enum, the names, the gRPC mapping and the metric labels all come from this table. */
#define MR_STATUS_MAP(X)                                 \
    X(OK, 0, 0, "ok")                                    \
    X(CANCELLED, 1, 0, "cancelled")                      \
    X(INVALID, 3, 0, "invalid argument")                 \
    X(TIMEOUT, 4, 1, "deadline exceeded")                \
    X(NOT_FOUND, 5, 0, "not found")                      \
    X(EXISTS, 6, 0, "already exists")                    \
    X(NO_MEMORY, 8, 1, "out of memory")                  \
    X(EXHAUSTED, 8, 1, "resource exhausted")             \
    X(MISMATCH, 9, 0, "does not match")                  \
    X(UNSUPPORTED, 12, 0, "not supported by this build") \
    X(INTERNAL, 13, 0, "internal error")                 \
    X(UNAVAILABLE, 14, 1, "dependency unavailable")      \
    X(IO, 14, 0, "input/output error")                   \
    X(CORRUPT, 15, 0, "malformed or corrupt data")

typedef enum {
#define MR_STATUS_ENUM(name, grpc, retry, text) MR_##name,
    MR_STATUS_MAP(MR_STATUS_ENUM)
#undef MR_STATUS_ENUM
        MR_STATUS_COUNT
} mr_status;

typedef struct {
    mr_status status;
    const char *file; /* where it was first raised; static storage */
    int line;
    char message[512]; /* UTF-8, terminated; controls and broken bytes of input are shown as '?' */
} mr_error;

/* "invalid argument" and the like; static storage. */
MR_API const char *mr_status_text(mr_status status);
/* "INVALID" and the like; static storage. */
MR_API const char *mr_status_name(mr_status status);
MR_API int mr_status_grpc_code(mr_status status);
MR_API int mr_status_is_retryable(mr_status status);

/* What MR_FAIL returns, visible to compilers: after a failure they know that it was none of OK. */
static inline mr_status mr_status_first(mr_status status, mr_status same)
{
    (void)same;
    return status;
}

/* Fills *err (may be NULL) and returns status, so that a failure is one line:
 *     return MR_FAIL(err, CORRUPT, "'%s' holds %zu bytes, expected %zu", key, found, want); */
MR_API mr_status mr_error_set(mr_error *err, mr_status status, const char *file, int line,
                              const char *fmt, ...) MR_PRINTF(5, 6);
#define MR_FAIL(err, kind, ...) \
    mr_status_first(MR_##kind, mr_error_set((err), MR_##kind, __FILE__, __LINE__, __VA_ARGS__))

/* Puts context in front of the message, outermost first, keeping status and origin:
 *     "opening bundle 'b': " + "llm/config.json: ..."
 * Returns err's status, or `status` when err is NULL or holds none. */
MR_API mr_status mr_error_prefix(mr_error *err, mr_status status, const char *fmt, ...)
    MR_PRINTF(3, 4);

MR_END_DECLS

#endif
