/* cmd_tokenize.c - mixrank tokenize: lines of text to ids, or back.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "engine/tokenizer.h"
#include "ranker/cli/command.h"

typedef struct {
    const char *model;
    bool decode, plain, add_special, skip_special, json;
} tokenize_options;

static const mr_option options[] = {
    MR_OPTION_STRING("model", 'm', "DIR", tokenize_options, model,
                     "a folder with tokenizer.json, or the file itself"),
    MR_OPTION_FLAG("decode", 'd', tokenize_options, decode, "lines of ids to text"),
    MR_OPTION_FLAG(
        "plain", 0, tokenize_options, plain,
        "special tokens spelled in the text are ordinary text, as in fields of a prompt"),
    MR_OPTION_FLAG("add-special", 0, tokenize_options, add_special,
                   "add what the model's post-processor adds (BOS and the like)"),
    MR_OPTION_FLAG("skip-special", 0, tokenize_options, skip_special,
                   "with --decode: leave special tokens out"),
    MR_OPTION_FLAG("json", 0, tokenize_options, json,
                   "one JSON object a line; with --decode the way to get new lines back whole"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "tokenize", "--model DIR [options]",
    "Reads lines on standard input; writes one line of token ids for each, or with --decode one "
    "line "
    "of text for each line of ids.",
    "  echo 'Rank these items' | mixrank tokenize --model build/demo/bundle/llm\n"
    "  echo '82 97 110 107' | mixrank tokenize --model build/demo/bundle/llm --decode\n"};

static mr_status encode_line(const mr_tokenizer *tok, const tokenize_options *opt, mr_str line,
                             mr_error *err)
{
    mr_ids ids = {0};
    const int flags = (opt->plain ? MR_TOKENIZE_PLAIN : MR_TOKENIZE_PARSE_SPECIAL) |
                      (opt->add_special ? MR_TOKENIZE_ADD_SPECIAL : 0);
    mr_status status = mr_tokenizer_encode(tok, line, flags, &ids, err);
    if (status == MR_OK && opt->json) {
        json_t *list = json_array(), *spelling = json_array();
        for (size_t i = 0; i < ids.n; i++) {
            const char *token = mr_tokenizer_token(tok, ids.data[i]);
            json_array_append_new(list, json_integer(ids.data[i]));
            json_array_append_new(spelling, json_string(token ? token : ""));
        }
        mr_command_print_json(json_pack("{s:o, s:o}", "ids", list, "tokens", spelling));
    } else if (status == MR_OK) {
        for (size_t i = 0; i < ids.n; i++)
            printf("%s%d", i ? " " : "", (int)ids.data[i]);
        putchar('\n');
    }
    mr_ids_release(&ids);
    return status;
}

static mr_status read_ids(const char *line, mr_ids *ids, mr_error *err)
{
    mr_status status = MR_OK;
    for (const char *p = line; status == MR_OK;) {
        p += strspn(p, " \t,[]");
        if (*p == '\0')
            break;
        char *end = NULL;
        errno = 0;
        long value = strtol(p, &end, 10);
        if (end == p || errno || value < 0 || value > INT32_MAX)
            return MR_FAIL(err, INVALID, "'%.20s' is not a token id", p);
        const int32_t id = (int32_t)value;
        status = mr_ids_append(ids, &id, 1, err);
        p = end;
    }
    return status;
}

static mr_status decode_line(const mr_tokenizer *tok, const tokenize_options *opt, mr_str line,
                             mr_error *err)
{
    mr_ids ids = {0};
    char *text = NULL;
    size_t len = 0;
    if (memchr(line.data, '\0', line.len))
        return MR_FAIL(err, INVALID, "a NUL byte stands among the token ids");
    mr_status status = read_ids(line.data, &ids, err);
    if (status == MR_OK)
        status = mr_tokenizer_decode(tok, ids.data, ids.n, opt->skip_special, &text, &len, err);
    if (status == MR_OK && opt->json) {
        mr_command_print_json(json_pack("{s:o}", "text", json_stringn(text, len)));
    } else if (status == MR_OK) {
        fwrite(text, 1, len, stdout);
        putchar('\n');
    }
    free(text);
    mr_ids_release(&ids);
    return status;
}

int mr_cmd_tokenize(int argc, char **argv)
{
    tokenize_options opt = {0};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional)
        return mr_command_misuse(help.name,
                                 "unexpected argument '%s'; text comes on standard input", argv[1]);
    if (!opt.model)
        return mr_command_misuse(help.name, "--model is missing");
    mr_error err = {0};
    mr_tokenizer *tok = NULL;
    if (mr_tokenizer_open(&tok, opt.model, &err) != MR_OK)
        return mr_command_fail(help.name, &err);

    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t len;
    code = MR_EXIT_OK;
    while ((len = getline(&line, &capacity, stdin)) >= 0) {
        number++;
        if (len > 0 && line[len - 1] == '\n')
            line[--len] = '\0';
        const mr_str text = {line, (size_t)len};
        mr_status status =
            opt.decode ? decode_line(tok, &opt, text, &err) : encode_line(tok, &opt, text, &err);
        if (status != MR_OK) {
            mr_error_prefix(&err, status, "line %zu", number);
            code = mr_command_fail(help.name, &err);
            break;
        }
    }
    if (code == MR_EXIT_OK && mr_command_check_stdin(&err) != MR_OK)
        code = mr_command_fail(help.name, &err);
    free(line);
    mr_tokenizer_close(tok);
    return code;
}
