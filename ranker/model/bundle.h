/* bundle.h - PUBLIC. A model package: one folder that says how items are ranked.
 *
 *     mr_bundle *bundle = NULL;
 *     if (mr_bundle_open(&bundle, "deploy/demo/bundle", NULL, &err) != MR_OK) ...
 *     ...                            rankers and scorers borrow it
 *     mr_bundle_close(bundle);
 *
 * bundle.json names the parts, all plain Hugging Face layouts, by relative paths that cannot leave
 * the folder. docs/bundle.md describes every key. Opening checks all of it: unknown keys, missing
 * tensors, shapes that do not fit each other, yes/no labels that are not one token, and, unless
 * told otherwise, the golden requests: their margins within the stated tolerance and their order
 * outside it. Digests of files are checked by mr_bundle_verify, not at every start. Of the item
 * encoder only the header of its weights is looked at: whoever encodes opens it (parts.h).
 * Threads: read-only after open; may be shared.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_BUNDLE_H
#define MR_RANKER_MODEL_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/api.h"
#include "core/error.h"

MR_BEGIN_DECLS

typedef struct mr_bundle mr_bundle;

typedef struct {
    size_t size;      /* sizeof(mr_bundle_options) */
    int threads;      /* of the bundle's pool; 0: the CPUs of this process */
    bool skip_golden; /* open without running the golden requests */
} mr_bundle_options;
#define MR_BUNDLE_OPTIONS_DEFAULT         \
    {                                     \
        .size = sizeof(mr_bundle_options) \
    }

/* options may be NULL. */
MR_API MR_NODISCARD mr_status mr_bundle_open(mr_bundle **out, const char *folder,
                                             const mr_bundle_options *options, mr_error *err);
MR_API void mr_bundle_close(mr_bundle *bundle); /* NULL is fine */

MR_API const char *mr_bundle_name(const mr_bundle *bundle);
MR_API const char *mr_bundle_version(const mr_bundle *bundle);
MR_API bool mr_bundle_is_mixed(
    const mr_bundle *bundle); /* reads embedding tokens; else text mode */
/* True when any part holds weights that were never trained: the order then means nothing, and every
 * output must say so. */
MR_API bool mr_bundle_is_untrained(const mr_bundle *bundle);
#define MR_UNTRAINED_NOTICE "untrained weights: the order means nothing"

/* 0 when the bundle has no such space. */
MR_API uint64_t mr_bundle_item_space(const mr_bundle *bundle);
MR_API uint64_t mr_bundle_user_space(const mr_bundle *bundle);
/* "scoring/avx2/BF16/r1": two bundles with equal ids and files give the same bits. */
MR_API const char *mr_bundle_numerics_id(const mr_bundle *bundle);

/* Every file's SHA-256 against bundle.json, that no file is missing; then all parts with the item
 * encoder, and the golden requests. The first failure is reported. */
MR_API MR_NODISCARD mr_status mr_bundle_verify(const char *folder, mr_error *err);

MR_END_DECLS

#endif
