/* trainer_spec.c - what training reads of a bundle.json that has no weights yet.
 *
 * The file is the --spec of `mixrank bundle create`: what is trained is what will be served.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "encoders/text_encoder.h"
#include "ranker/model/parts.h"
#include "ranker/training/trainer_private.h"

/* An id, or a string that is one token. */
static mr_status label(const json_t *score, const char *key, const char *path,
                       const mr_tokenizer *tokenizer, int32_t *out, mr_error *err)
{
    const json_t *value = json_object_get(score, key);
    const int32_t ids = mr_tokenizer_vocab_size(tokenizer);
    int64_t id = -1;
    if (json_is_integer(value))
        id = json_integer_value(value);
    else if (json_is_string(value))
        id = mr_tokenizer_token_id(tokenizer, json_string_value(value));
    if (id < 0 || id >= ids)
        return MR_FAIL(err, INVALID, "%s: score.%s is %s, expected a token of the tokenizer", path,
                       key, mr_json_describe(value));
    *out = (int32_t)id;
    return MR_OK;
}

static mr_status read_item_encoder(mr_trainer_spec *spec, const json_t *item, const char *path,
                                   const mr_tokenizer *tokenizer, mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of(path, item, err);
    spec->item_tokens =
        (int)mr_json_int(&cur, "tokens", 1, MR_TEXT_ENCODER_MAX_TOKENS, MR_BUNDLE_ITEM_TOKENS);
    spec->item_max_tokens = (int)mr_json_int(&cur, "max_tokens", 2, 32768, MR_BUNDLE_ITEM_LENGTH);
    spec->item_append_eos = mr_json_bool(&cur, "append_eos", MR_BUNDLE_APPEND_EOS);
    const json_t *text = mr_json_array(&cur, "text", true);
    if (cur.status != MR_OK)
        return cur.status;
    return mr_template_compile(&spec->item_text, "encoders.item.text", text, tokenizer, err);
}

mr_status mr_trainer_spec_open(mr_trainer_spec *out, const char *path,
                               const mr_tokenizer *tokenizer, mr_error *err)
{
    mr_trainer_spec spec = {.user_order = MR_HISTORY_SET};
    mr_status status = mr_json_load_file(&spec.root, path, MR_JSON_MAX_CONFIG, err);
    if (status != MR_OK)
        return status;
    mr_json_cursor cur = mr_json_cursor_of(path, spec.root, err);
    const char *mode = mr_json_string(&cur, "mode", NULL, true);
    const json_t *prefix = mr_json_array(&cur, "prefix", true);
    const json_t *suffix = mr_json_array(&cur, "suffix", true);
    const json_t *score = mr_json_object(&cur, "score", true);
    const json_t *encoders = mr_json_object(&cur, "encoders", false);
    spec.max_length = (int)mr_json_int(&cur, "max_length", 8, 131072, MR_BUNDLE_MAX_LENGTH);
    status = cur.status;
    if (status != MR_OK)
        goto out;
    spec.mixed = strcmp(mode, "mixed") == 0;
    if (!spec.mixed && strcmp(mode, "text") != 0)
        status =
            MR_FAIL(err, INVALID, "%s: 'mode' is '%s', expected 'mixed' or 'text'", path, mode);
    if (status != MR_OK)
        goto out;
    status = label(score, "yes", path, tokenizer, &spec.yes, err);
    if (status == MR_OK)
        status = label(score, "no", path, tokenizer, &spec.no, err);
    if (status == MR_OK)
        status = mr_template_compile(&spec.prefix, "prefix", prefix, tokenizer, err);
    if (status == MR_OK)
        status = mr_template_compile(&spec.suffix, "suffix", suffix, tokenizer, err);
    const json_t *item = json_object_get(encoders, "item"),
                 *user = json_object_get(encoders, "user");
    if (status == MR_OK && item)
        status = read_item_encoder(&spec, item, path, tokenizer, err);
    if (status == MR_OK && user) {
        mr_json_cursor u = mr_json_cursor_of(path, user, err);
        spec.user_tokens =
            (int)mr_json_int(&u, "tokens", 1, MR_BUNDLE_HISTORY_MOST, MR_BUNDLE_HISTORY_TOKENS);
        const char *order = mr_json_string(&u, "order", MR_BUNDLE_HISTORY_ORDER, false);
        status = u.status;
        if (status == MR_OK && strcmp(order, "sequence") == 0)
            spec.user_order = MR_HISTORY_SEQUENCE;
        else if (status == MR_OK && strcmp(order, "set") != 0)
            status = MR_FAIL(err, INVALID,
                             "%s: encoders.user.order is '%s', expected 'set' or 'sequence'", path,
                             order);
    }
    if (status != MR_OK)
        goto out;
    *out = spec;
    spec = (mr_trainer_spec){0};

out:
    mr_trainer_spec_close(&spec);
    return status;
}

void mr_trainer_spec_close(mr_trainer_spec *spec)
{
    mr_template_free(spec->prefix);
    mr_template_free(spec->suffix);
    mr_template_free(spec->item_text);
    json_decref(spec->root);
    *spec = (mr_trainer_spec){0};
}
