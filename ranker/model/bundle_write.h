/* bundle_write.h - makes bundles: from parts, from a Qwen3-Reranker folder, with golden requests.
 *
 * A bundle is assembled in a temporary folder beside the target and renamed in one step. Parts are
 * copied, or hard-linked where the file system allows it and `link` asks for it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_BUNDLE_WRITE_H
#define MR_RANKER_MODEL_BUNDLE_WRITE_H

#include "core/error.h"
#include "core/json.h"
#include "engine/dtype.h"

typedef struct {
    const json_t *spec;        /* bundle.json without spaces, files and golden: completed here */
    const char *llm;           /* Hugging Face folder, becomes llm/ */
    const char *item_encoder;  /* folder, becomes encoder/; NULL when external or text mode */
    const char *image_encoder; /* CLIP or LLaVA folder, becomes vision/; NULL: none, or external */
    const char *user_encoder;  /* folder of encoders/user_encoder.h, becomes user/; or NULL */
    /* .safetensors files; NULL: identity, for a history without an encoder the item's.
     */
    const char *item_projector, *user_projector, *image_projector;
    bool link;
    bool convert; /* all weights to `dtype`: F32, F16 or BF16 */
    mr_dtype dtype;
    bool overwrite; /* a bundle that is there; any other folder is never replaced */
} mr_bundle_create_options;

/* Fills in dims, spaces and file digests, then opens the result to check it. A failure leaves
 * nothing behind, and what was there as it was. */
MR_NODISCARD mr_status mr_bundle_create(const char *out_folder, const mr_bundle_create_options *opt,
                                        mr_error *err);

/* Qwen3-Reranker layout (arXiv 2506.05176; template as published with the model): text mode with
 * the fields instruction, query and document. NULL instruction: the published default. */
MR_NODISCARD mr_status mr_bundle_from_reranker(const char *out_folder, const char *reranker_folder,
                                               const char *instruction, size_t max_length,
                                               bool link, bool overwrite, mr_error *err);

/* Writes golden.json: requests (JSONL file with vectors or fields inline; NULL makes n_made
 * requests with seeded random vectors and texts), their margins with this build's numerics, and a
 * tolerance per precision. The bundle is opened, scored, and its bundle.json told of the file; the
 * digests of all other files stay as they are. */
MR_NODISCARD mr_status mr_bundle_write_golden(const char *folder, const char *requests_path,
                                              size_t n_made, uint64_t seed, mr_error *err);

/* Runs golden.json on an open bundle: MISMATCH names request, candidate, margin, expected,
 * tolerance.
 */
struct mr_bundle;
MR_NODISCARD mr_status mr_bundle_check_golden(const struct mr_bundle *bundle, mr_error *err);

/* Fills a bundle's "files" and "spaces" from what is in the folder. */
MR_NODISCARD mr_status mr_bundle_seal(const char *folder, mr_error *err);

#endif
