/* fuzz_bundle.c - whatever bundle.json and golden.json hold: one error that names the bundle, or a
 * bundle that opens, whose parts agree, and that scores a candidate or says why not.
 *
 * Input: a bundle.json, and after a form feed the golden.json beside it. The parts lie in a
 * temporary folder, made once: a model of the shape "tiny", an encoder of the same shape, and a
 * projector from 8 to 64 wide. Each input is tried as it is and once more with the spaces that its
 * encoders hash to, without which a fuzzer would never come past them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/utf8.h"
#include "encoders/space.h"
#include "ranker/model/bundle_write.h"
#include "ranker/model/parts.h"
#include "ranker/model/scorer.h"
#include "ranker/model/untrained_bundle.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support.h"

#define MAX_GOLDEN  ((size_t)4096)    /* every vector in it costs a run of the model */
#define MOST_VALUES ((size_t)1 << 16) /* of one item's vectors */

static char *folder;
static pid_t owner;

static void require(int condition)
{
    if (!condition)
        abort();
}

/* Not by a child of libFuzzer's: the folder is its parent's. */
static void remove_folder(void)
{
    if (getpid() == owner)
        test_folder_free(folder);
}

static void make_parts(void)
{
    static const float weight[64 * 8];
    static const mr_tensor projector = {"linear_1.weight", weight,       MR_DTYPE_F32, 2,
                                        {64, 8},           sizeof weight};
    const mr_untrained_bundle_options opt = {.shape = mr_untrained_find("tiny"),
                                             .dtype = MR_DTYPE_BF16,
                                             .seed = 1,
                                             .item_tokens = 2,
                                             .user_tokens = 3,
                                             .overwrite = true};
    mr_error err = {0};
    folder = test_folder_new();
    owner = getpid();
    atexit(remove_folder);
    test_file_write(test_path(folder, "bundle.json"), "{}", 2); /* so that it may be replaced */
    if (mr_untrained_bundle_write(folder, &opt, &err) != MR_OK ||
        mr_safetensors_write(test_path(folder, "item_projector.safetensors"), &projector, 1, NULL,
                             &err) != MR_OK)
        fail_msg("%s", err.message);
}

static void check_failure(mr_status status, const mr_error *err)
{
    require(err->status == status && strncmp(err->message, "bundle '", strlen("bundle '")) == 0);
    require(mr_utf8_valid_prefix(err->message, strlen(err->message)) == strlen(err->message));
}

/* One candidate, as a request would bring it: a margin that is a number, or the reason. */
static void score_one(const mr_bundle *bundle)
{
    static const mr_field field[] = {{{"query", 5}, {"text editor", 11}},
                                     {{"title", 5}, {"yes <|endoftext|>", 17}},
                                     {{"document", 8}, {"", 0}},
                                     {{"text", 4}, {"It edits texts.", 15}}};
    static const float zeros[MOST_VALUES];
    const mr_fields fields = {field, sizeof field / sizeof *field};
    const size_t user = (size_t)bundle->user.tokens, item = (size_t)bundle->item.tokens;
    if (user * bundle->user.dim > MOST_VALUES || item * bundle->item.dim > MOST_VALUES)
        return;
    const mr_scorer_prefix prefix = {.fields = fields, .user = {zeros, user, bundle->user.dim}};
    const mr_scorer_candidate candidate = {.fields = fields,
                                           .item = {zeros, item, bundle->item.dim}};
    mr_scorer *scorer = NULL;
    mr_status why = MR_OK;
    double margin = 0;
    mr_error err = {0}, first = {0};
    mr_status status = mr_scorer_new(&scorer, bundle, NULL, &err);
    if (status == MR_OK)
        status = mr_scorer_begin(scorer, &prefix, &err);
    if (status == MR_OK)
        status = mr_scorer_score(scorer, &candidate, 1, &margin, &why, &first, &err);
    require((status == MR_OK) == (err.message[0] == '\0'));
    if (status == MR_OK)
        require(why == MR_OK ? isfinite(margin) : isnan(margin) && first.message[0] != '\0');
    mr_scorer_free(scorer);
}

static void look_at(const mr_bundle *bundle)
{
    const int32_t vocabulary = bundle->llm->config.V;
    require(mr_bundle_name(bundle) && mr_bundle_version(bundle));
    require(mr_bundle_is_untrained(bundle));
    require(bundle->yes_id >= 0 && bundle->yes_id < vocabulary);
    require(bundle->no_id >= 0 && bundle->no_id < vocabulary && bundle->no_id != bundle->yes_id);
    require(bundle->max_length <= (size_t)bundle->llm->config.max_positions);
    const double score = mr_bundle_score(bundle, 1.5);
    require(isfinite(score) && score >= 0 && score <= 1);
    require(!bundle->mixed || bundle->item.kind != MR_ENCODER_NONE);
    score_one(bundle);

    mr_text_encoder *encoder = NULL;
    mr_error err = {0};
    mr_status status = mr_bundle_open_item_encoder(bundle, MR_GEMM_SCORING, 1, &encoder, &err);
    if (status != MR_OK)
        check_failure(status, &err);
    mr_text_encoder_close(encoder);
}

static void open_bundle(void)
{
    mr_bundle *bundle = NULL;
    mr_error err = {0};
    const mr_bundle_options opt = {.size = sizeof opt, .threads = 1, .skip_golden = true};
    mr_status status = mr_bundle_open(&bundle, folder, &opt, &err);
    if (status != MR_OK) {
        require(!bundle);
        check_failure(status, &err);
        return;
    }
    look_at(bundle);
    status = mr_bundle_check_golden(bundle, &err);
    if (status != MR_OK)
        check_failure(status, &err);
    mr_bundle_close(bundle);
}

static void set_space(json_t *root, const char *encoder)
{
    uint64_t space = 0;
    char text[MR_SPACE_TEXT];
    json_t *description = mr_bundle_space_description(root, encoder, NULL);
    if (description && mr_space_of(description, &space, NULL) == MR_OK) {
        mr_space_format(space, text);
        if (!json_is_object(json_object_get(root, "spaces")))
            json_object_set_new(root, "spaces", json_object());
        json_object_set_new(json_object_get(root, "spaces"), encoder, json_string(text));
    }
    json_decref(description);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!folder)
        make_parts();
    const uint8_t *end = size ? memchr(data, '\f', size) : NULL;
    const size_t len = end ? (size_t)(end - data) : size;
    size_t golden = end ? size - len - 1 : 0;
    golden = golden > MAX_GOLDEN ? MAX_GOLDEN : golden;
    test_file_write(test_path(folder, "bundle.json"), data, len);
    test_file_write(test_path(folder, "golden.json"), golden ? end + 1 : NULL, golden);
    open_bundle();

    json_t *root = NULL;
    const mr_str json = {(const char *)data, len};
    if (mr_json_parse(&root, "fuzz", json, NULL) != MR_OK || !json_is_object(root)) {
        json_decref(root);
        return 0;
    }
    set_space(root, "item");
    set_space(root, "user"); /* a history's depends on the item's */
    char *sealed = json_dumps(root, JSON_COMPACT);
    if (sealed) {
        test_file_write(test_path(folder, "bundle.json"), sealed, strlen(sealed));
        open_bundle();
    }
    free(sealed);
    json_decref(root);
    return 0;
}
