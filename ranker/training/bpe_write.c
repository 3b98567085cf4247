/* bpe_write.c - tokenizer.json and tokenizer_config.json.
 *
 * tokenizer.json is, byte for byte, what the tokenizers library saves: the keys in its order, two
 * blanks a level. So a file of ours that was read and saved again shows no difference.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "core/arena.h"
#include "core/file.h"
#include "ranker/training/bpe_private.h"

static void print_string(mr_strbuf *out, mr_str text)
{
    static const char escapes[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
    mr_strbuf_puts(out, "\"");
    for (size_t i = 0, plain = 0; i <= text.len; i++) {
        const unsigned char byte = i < text.len ? (unsigned char)text.data[i] : 0;
        if (byte >= 0x20 && byte != '"' && byte != '\\')
            continue;
        mr_strbuf_append(out, text.data + plain, i - plain);
        plain = i + 1;
        const char *known = byte ? strchr(escapes, byte) : NULL;
        if (known)
            mr_strbuf_printf(out, "\\%c", letters[known - escapes]);
        else if (byte)
            mr_strbuf_printf(out, "\\u%04x", byte);
    }
    mr_strbuf_puts(out, "\"");
}

static void print_added(const mr_bpe *bpe, mr_strbuf *out)
{
    mr_strbuf_puts(out, "  \"added_tokens\": [");
    for (uint32_t id = 0; id < bpe->n_special; id++) {
        mr_strbuf_printf(out, "%s\n    {\n      \"id\": %u,\n      \"content\": ", id ? "," : "",
                         (unsigned)id);
        print_string(out, mr_bpe_strings_at(&bpe->tokens, id));
        mr_strbuf_puts(out, ",\n      \"single_word\": false,\n      \"lstrip\": false,\n"
                            "      \"rstrip\": false,\n      \"normalized\": false,\n"
                            "      \"special\": true\n    }");
    }
    mr_strbuf_puts(out, bpe->n_special ? "\n  ],\n" : "],\n");
}

/* The same words as the engine's own scanners, which know these expressions by their text. */
#define QWEN2_REGEX                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]" \
    "+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static void print_pre_tokenizer(const mr_bpe *bpe, mr_strbuf *out)
{
    if (bpe->style == MR_BPE_GPT2) {
        mr_strbuf_puts(out, "  \"pre_tokenizer\": {\n    \"type\": \"ByteLevel\",\n"
                            "    \"add_prefix_space\": false,\n    \"trim_offsets\": true,\n"
                            "    \"use_regex\": true\n  },\n");
        return;
    }
    mr_strbuf_puts(out, "  \"pre_tokenizer\": {\n    \"type\": \"Sequence\",\n"
                        "    \"pretokenizers\": [\n      {\n        \"type\": \"Split\",\n"
                        "        \"pattern\": {\n          \"Regex\": ");
    print_string(out, mr_str_of(QWEN2_REGEX));
    mr_strbuf_puts(out, "\n        },\n        \"behavior\": \"Isolated\",\n"
                        "        \"invert\": false\n      },\n      {\n"
                        "        \"type\": \"ByteLevel\",\n        \"add_prefix_space\": false,\n"
                        "        \"trim_offsets\": true,\n        \"use_regex\": false\n"
                        "      }\n    ]\n  },\n");
}

static void print_model(const mr_bpe *bpe, mr_strbuf *out)
{
    mr_strbuf_puts(out, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n"
                        "    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n"
                        "    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
                        "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n"
                        "    \"vocab\": {");
    for (uint32_t id = 0; id < bpe->tokens.n; id++) {
        mr_strbuf_puts(out, id ? ",\n      " : "\n      ");
        print_string(out, mr_bpe_strings_at(&bpe->tokens, id));
        mr_strbuf_printf(out, ": %u", (unsigned)id);
    }
    mr_strbuf_puts(out, "\n    },\n    \"merges\": [");
    for (size_t i = 0; i < bpe->figures.merges; i++) {
        mr_strbuf_puts(out, i ? ",\n      [\n        " : "\n      [\n        ");
        print_string(out, mr_bpe_strings_at(&bpe->tokens, bpe->merges[i].left));
        mr_strbuf_puts(out, ",\n        ");
        print_string(out, mr_bpe_strings_at(&bpe->tokens, bpe->merges[i].right));
        mr_strbuf_puts(out, "\n      ]");
    }
    mr_strbuf_puts(out, bpe->figures.merges ? "\n    ]\n  }\n" : "]\n  }\n");
}

void mr_bpe_print(const mr_bpe *bpe, mr_strbuf *out)
{
    mr_strbuf_puts(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n"
                        "  \"padding\": null,\n");
    print_added(bpe, out);
    mr_strbuf_puts(out, bpe->lowercase ? "  \"normalizer\": {\n    \"type\": \"Lowercase\"\n  },\n"
                                       : "  \"normalizer\": null,\n");
    print_pre_tokenizer(bpe, out);
    mr_strbuf_puts(out, "  \"post_processor\": null,\n  \"decoder\": {\n"
                        "    \"type\": \"ByteLevel\",\n    \"add_prefix_space\": true,\n"
                        "    \"trim_offsets\": true,\n    \"use_regex\": true\n  },\n");
    print_model(bpe, out);
    mr_strbuf_puts(out, "}");
}

static void print_config(const mr_bpe *bpe, mr_strbuf *out)
{
    mr_strbuf_puts(out, "{\n  \"clean_up_tokenization_spaces\": false,\n");
    if (bpe->end_of_text < bpe->n_special) {
        mr_strbuf_puts(out, "  \"eos_token\": ");
        print_string(out, mr_bpe_strings_at(&bpe->tokens, bpe->end_of_text));
        mr_strbuf_puts(out, ",\n");
    }
    mr_strbuf_puts(out, "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
}

static mr_status write_one(const mr_bpe *bpe, void (*print)(const mr_bpe *bpe, mr_strbuf *out),
                           const char *folder, const char *name, mr_error *err)
{
    mr_arena arena = {0};
    mr_strbuf text = {0};
    print(bpe, &text);
    const char *path = mr_path_join(&arena, folder, name);
    mr_status status = path && !text.failed
                           ? mr_file_write(path, text.data, text.len, err)
                           : MR_FAIL(err, NO_MEMORY, "%s/%s: %zu bytes", folder, name, text.len);
    mr_strbuf_release(&text);
    mr_arena_done(&arena);
    return status;
}

mr_status mr_bpe_write(const mr_bpe *bpe, const char *folder, mr_error *err)
{
    mr_status status = write_one(bpe, print_config, folder, "tokenizer_config.json", err);
    return status == MR_OK ? write_one(bpe, mr_bpe_print, folder, "tokenizer.json", err) : status;
}
