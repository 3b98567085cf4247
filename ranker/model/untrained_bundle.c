/* untrained_bundle.c - see untrained_bundle.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/untrained_bundle.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/utf8.h"
#include "ranker/model/bundle_write.h"
#include "ranker/model/folder.h"

/* One with a user and one without: every start of the bundle runs them. */
#define GOLDEN_REQUESTS 2

/* The regular expression of Qwen2's pre-tokeniser, as its tokenizer.json has it. */
static const char qwen2_split[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{"
                                  "N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                                  "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* GPT-2's byte alphabet (encoder.py, bytes_to_unicode): printable bytes stand for themselves, the
 * others for U+0100 and on, in order. */
static size_t byte_spelling(int byte, char out[5])
{
    uint32_t next = 0x100, code = 0;
    for (int b = 0; b <= byte; b++) {
        const bool printable =
            (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
        code = printable ? (uint32_t)b : next++;
    }
    const size_t n = mr_utf8_encode(code, out);
    out[n] = '\0';
    return n;
}

mr_status mr_untrained_tokenizer_write(const char *path, mr_error *err)
{
    static const char *const merged[] = {"ye", "yes", "no"};
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    json_t *vocab = json_object(), *added = json_array();
    int id = 0;
    for (int byte = 0; byte < 256; byte++) {
        char spelling[5];
        byte_spelling(byte, spelling);
        json_object_set_new(vocab, spelling, json_integer(id++));
    }
    for (size_t i = 0; i < 3; i++)
        json_object_set_new(vocab, merged[i], json_integer(id++));
    for (size_t i = 0; i < 3; i++)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id++,
                                               "content", special[i], "single_word", 0, "lstrip", 0,
                                               "rstrip", 0, "normalized", 0, "special", 1));
    json_t *root = json_pack(
        "{s:s, s:n, s:n, s:o, s:{s:s}, s:{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b, s:b}]},"
        " s:n, s:{s:s, s:b, s:b, s:b}, s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:[s, s, "
        "s]}}",
        "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer", "type",
        "NFC", "pre_tokenizer", "type", "Sequence", "pretokenizers", "type", "Split", "pattern",
        "Regex", qwen2_split, "behavior", "Isolated", "invert", 0, "type", "ByteLevel",
        "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 0, "post_processor", "decoder",
        "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 0, "model",
        "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
        "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges", "y e",
        "ye s", "n o");
    if (!root)
        return MR_FAIL(err, NO_MEMORY, "tokenizer.json");
    mr_status status = mr_json_save_file(root, path, err);
    json_decref(root);
    return status;
}

static json_t *bundle_spec(const mr_untrained_bundle_options *opt)
{
    /* Room for the words around them, a query, and every embedding token that may come. */
    const int max_length = 512 + (opt->user_tokens + 1) * opt->item_tokens;
    json_t *prefix =
        json_pack("[s, {s:s, s:i}, s]", "Rank the item for this person. Query: ", "field", "query",
                  "max_tokens", 256, "\nPerson: ");
    if (opt->user_tokens)
        json_array_append_new(prefix, json_pack("{s:s, s:s}", "slot", "user", "when", "user"));
    json_array_append_new(prefix, json_string("\nItem: "));
    json_t *spec = json_pack(
        "{s:i, s:s, s:s, s:s, s:b, s:i, s:o, s:[{s:s}, {s:s}], s:{s:s, s:s, s:s},"
        " s:{s:{s:s, s:i, s:[s, {s:s}], s:i, s:b}}}",
        "format", 1, "name", "untrained", "version", opt->shape->name, "mode", "mixed", "untrained",
        1, "max_length", max_length, "prefix", prefix, "suffix", "slot", "item", "token",
        "<|endoftext|>", "score", "kind", "yes_no", "yes", "yes", "no", "no", "encoders", "item",
        "kind", "causal_last_n", "tokens", opt->item_tokens, "text", "Item information: ", "field",
        "text", "max_tokens", 256, "append_eos", 1);
    if (spec && opt->user_tokens)
        json_object_set_new(json_object_get(spec, "encoders"), "user",
                            json_pack("{s:s, s:i, s:s}", "kind", "history", "tokens",
                                      opt->user_tokens, "order", "set"));
    return spec;
}

static mr_status write_part(mr_arena *arena, const char *folder,
                            const mr_untrained_bundle_options *opt, uint64_t seed, mr_error *err)
{
    mr_untrained_options weights = MR_UNTRAINED_OPTIONS_DEFAULT;
    weights.seed = seed;
    /* At 0.02 a narrow model's margins nearly vanish: what is shown would all be 0.50000. */
    weights.deviation = opt->shape->config.C <= 128 ? 0.3 : 0.02;
    weights.dtype = opt->dtype;
    mr_model_config config = opt->shape->config;
    config.bos_id = config.eos_id = 259; /* <|endoftext|> of the tokenizer above */
    char *path = mr_path_join(arena, folder, "tokenizer.json");
    mr_status status = path ? mr_untrained_write(folder, &config, &weights, err)
                            : MR_FAIL(err, NO_MEMORY, "path of tokenizer.json");
    return status == MR_OK ? mr_untrained_tokenizer_write(path, err) : status;
}

/* Writes the parts beside the bundle and makes it of them, by links. */
static mr_status make_bundle(mr_arena *arena, const char *folder, const char *parts,
                             const mr_untrained_bundle_options *opt, mr_error *err)
{
    char *llm = mr_path_join(arena, parts, "llm"), *encoder = mr_path_join(arena, parts, "encoder");
    json_t *spec = bundle_spec(opt);
    mr_status status = llm && encoder && spec ? MR_OK : MR_FAIL(err, NO_MEMORY, "untrained bundle");
    if (status == MR_OK)
        status = write_part(arena, llm, opt, opt->seed, err);
    if (status == MR_OK)
        status = write_part(arena, encoder, opt, opt->seed + 1, err);
    if (status == MR_OK) {
        const mr_bundle_create_options create = {.spec = spec,
                                                 .llm = llm,
                                                 .item_encoder = encoder,
                                                 .link = true,
                                                 .overwrite = opt->overwrite};
        status = mr_bundle_create(folder, &create, err);
    }
    json_decref(spec);
    return status;
}

mr_status mr_untrained_bundle_write(const char *folder, const mr_untrained_bundle_options *opt,
                                    mr_error *err)
{
    mr_arena arena = {0};
    size_t len = strlen(folder);
    while (len > 1 && folder[len - 1] == '/')
        len--;
    char *parts = mr_arena_alloc(&arena, len + 32, 1, 1);
    mr_status status = parts ? MR_OK : MR_FAIL(err, NO_MEMORY, "untrained bundle");
    if (status == MR_OK && mr_file_exists(folder) && !opt->overwrite)
        status = MR_FAIL(err, EXISTS, "'%s' is already there; --force replaces it", folder);
    if (status == MR_OK) {
        snprintf(parts, len + 32, "%.*s.parts-%ld", (int)len, folder, (long)getpid());
        status = make_bundle(&arena, folder, parts, opt, err);
        mr_folder_remove(parts);
    }
    if (status == MR_OK)
        status = mr_bundle_write_golden(folder, NULL, GOLDEN_REQUESTS, opt->seed, err);
    mr_arena_done(&arena);
    return status;
}
