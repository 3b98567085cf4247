/* bundle_reranker.c - a text bundle of a Qwen3-Reranker folder, with the template published with
 * the model (arXiv 2506.05176 and the model card's code).
 *
 * The published code makes three parts: a fixed prefix, a body "<Instruct>: ..\n<Query>:
 * ..\n<Document>:
 * .." tokenised as one text and cut from the right, and a fixed suffix. Ours cuts the body in two
 * so that the query's half is computed once: after "<Document>:", before the blank. Qwen2's
 * pre-tokeniser always has a boundary there, because a run of punctuation never takes a following
 * blank, and whatever comes after the blank starts its own piece with it; so the tokens are those
 * of the whole body.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/json.h"
#include "ranker/model/bundle_write.h"

static const char published_instruction[] =
    "Given a web search query, retrieve relevant passages that answer the query";

static const char system_turn[] =
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    "the "
    "Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n"
    "<|im_start|>user\n";

static const char answer_turn[] = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";

mr_status mr_bundle_from_reranker(const char *out_folder, const char *reranker_folder,
                                  const char *instruction, size_t max_length, bool link,
                                  bool overwrite, mr_error *err)
{
    size_t len = strlen(reranker_folder);
    while (len > 1 && reranker_folder[len - 1] == '/')
        len--;
    const char *slash = reranker_folder + len;
    while (slash > reranker_folder && slash[-1] != '/')
        slash--;
    json_error_t why;
    json_t *spec = json_pack_ex(
        &why, 0,
        "{s:i, s:s%, s:s, s:s, s:I,"
        " s:[s, {s:[s, {s:s}, s, {s:s}, s], s:b}],"
        " s:[{s:[s, {s:s}], s:b}, s],"
        " s:{s:s, s:s, s:s}, s:{s:s}}",
        "format", 1, "name", slash, (size_t)(reranker_folder + len - slash), "version", "1", "mode",
        "text", "max_length", (json_int_t)max_length, "prefix", system_turn, "join",
        "<Instruct>: ", "field", "instruction", "\n<Query>: ", "field", "query",
        "\n<Document>:", "truncate", 1, "suffix", "join", " ", "field", "document", "truncate", 1,
        answer_turn, "score", "kind", "yes_no", "yes", "yes", "no", "no", "defaults", "instruction",
        instruction ? instruction : published_instruction);
    if (!spec)
        return MR_FAIL(err, INVALID, "the instruction or the folder's name is not UTF-8 (%s)",
                       why.text);
    const mr_bundle_create_options opt = {
        .spec = spec, .llm = reranker_folder, .link = link, .overwrite = overwrite};
    mr_status status = mr_bundle_create(out_folder, &opt, err);
    json_decref(spec);
    return status;
}
