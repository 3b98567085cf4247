/* cmd_bundle.c - mixrank bundle: create, golden, verify, from-reranker, untrained, show.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "encoders/llava_untrained.h"
#include "encoders/space.h"
#include "ranker/cli/command.h"
#include "ranker/model/bundle_write.h"
#include "ranker/model/parts.h"
#include "ranker/model/untrained_bundle.h"

static json_t *describe(const mr_bundle *bundle)
{
    const mr_model_config *config = &bundle->llm->config;
    char item[MR_SPACE_TEXT] = "none", user[MR_SPACE_TEXT] = "none";
    if (bundle->item.kind != MR_ENCODER_NONE)
        mr_space_format(bundle->item.space, item);
    if (bundle->user.kind != MR_ENCODER_NONE)
        mr_space_format(bundle->user.space, user);
    json_t *out = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:s, s:s, s:b, s:O, s:O}", "name", bundle->name,
        "version", bundle->version, "mode", bundle->mixed ? "mixed" : "text", "numerics_id",
        bundle->numerics_id, "family", mr_family_name(config->family), "layers", config->L, "width",
        config->C, "vocabulary", (int)config->V, "item_space", item, "user_space", user,
        "untrained", bundle->untrained, "prefix", json_object_get(bundle->root, "prefix"), "suffix",
        json_object_get(bundle->root, "suffix"));
    if (out && bundle->untrained)
        json_object_set_new(out, "notice", json_string(MR_UNTRAINED_NOTICE));
    return out;
}

/* Reports what was done to a bundle, or why not. */
static int done(const char *command, mr_status status, mr_error *err, const char *what,
                const char *folder, bool json)
{
    mr_bundle *bundle = NULL;
    if (status == MR_OK)
        status = mr_bundle_load(&bundle, folder, 1, err);
    if (status != MR_OK)
        return mr_command_fail(command, err);
    if (json) {
        json_t *report = describe(bundle);
        if (report) {
            json_object_set_new(report, "done", json_string(what));
            json_object_set_new(report, "bundle", mr_command_json_text(mr_str_of(folder)));
        }
        mr_command_print_json(report);
    } else {
        printf("%s %s%s\n", what, folder, bundle->untrained ? " (" MR_UNTRAINED_NOTICE ")" : "");
    }
    if (bundle->untrained)
        mr_command_warn_untrained(command, !json);
    mr_bundle_close(bundle);
    return MR_EXIT_OK;
}

/* ---- create ---------------------------------------------------------------------------------- */

typedef struct {
    const char *spec, *llm, *item_encoder, *item_projector, *user_projector;
    const char *image_encoder, *image_projector, *user_encoder;
    int dtype; /* index into dtype_choices */
    bool link, force, json;
} create_options;

static const char *const dtype_choices[] = {"keep", "f32", "f16", "bf16", NULL};
static const mr_dtype dtypes[] = {MR_DTYPE_COUNT, MR_DTYPE_F32, MR_DTYPE_F16, MR_DTYPE_BF16};

static int run_create(int argc, char **argv)
{
    static const mr_option options[] = {
        MR_OPTION_STRING("spec", 0, "FILE", create_options, spec,
                         "bundle.json without dims, spaces and digests: they are filled in"),
        MR_OPTION_STRING("llm", 0, "DIR", create_options, llm, "the ranking model"),
        MR_OPTION_STRING("item-encoder", 0, "DIR", create_options, item_encoder,
                         "the item text encoder"),
        MR_OPTION_STRING("image-encoder", 0, "DIR", create_options, image_encoder,
                         "folder of the tower of a clip image encoder: CLIP or LLaVA"),
        MR_OPTION_STRING("user-encoder", 0, "DIR", create_options, user_encoder,
                         "the trained encoder of a history"),
        MR_OPTION_STRING("image-projector", 0, "FILE", create_options, image_projector,
                         "projector of the pictures' features; none: identity"),
        MR_OPTION_STRING("item-projector", 0, "FILE", create_options, item_projector,
                         "safetensors; none: identity"),
        MR_OPTION_STRING("user-projector", 0, "FILE", create_options, user_projector,
                         "safetensors; none: identity, without a user encoder the item's"),
        MR_OPTION_CHOICE("dtype", 0, "TYPE", create_options, dtype, dtype_choices,
                         "store all weights as f32, f16 or bf16 (keep: as they are)"),
        MR_OPTION_FLAG("link", 0, create_options, link, "hard-link the weights instead of copying"),
        MR_OPTION_FLAG("force", 0, create_options, force, "replace a bundle that is there"),
        MR_OPTION_FLAG("json", 0, create_options, json, "print JSON"),
        MR_OPTION_END,
    };
    static const mr_command_help help = {
        "bundle create", "--spec FILE --llm DIR [options] OUT",
        "Assembles a bundle from its parts, fills in widths, spaces and digests, and opens it to "
        "check "
        "it before it gets its name.",
        "  mixrank bundle create --spec spec.json --llm qwen3 --item-encoder encoder out\n"};
    create_options opt = {0};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (n != 1 || !opt.spec || !opt.llm)
        return mr_command_misuse(help.name, "%s",
                                 n != 1      ? "give one folder to create"
                                 : !opt.spec ? "--spec is missing"
                                             : "--llm is missing");
    mr_error err = {0};
    json_t *spec = NULL;
    mr_status status = mr_json_load_file(&spec, opt.spec, MR_JSON_MAX_CONFIG, &err);
    if (status == MR_OK) {
        const mr_bundle_create_options create = {.spec = spec,
                                                 .llm = opt.llm,
                                                 .item_encoder = opt.item_encoder,
                                                 .item_projector = opt.item_projector,
                                                 .image_encoder = opt.image_encoder,
                                                 .image_projector = opt.image_projector,
                                                 .user_projector = opt.user_projector,
                                                 .user_encoder = opt.user_encoder,
                                                 .link = opt.link,
                                                 .convert = opt.dtype != 0,
                                                 .dtype = dtypes[opt.dtype],
                                                 .overwrite = opt.force};
        status = mr_bundle_create(argv[1], &create, &err);
    }
    json_decref(spec);
    return done(help.name, status, &err, "created", argv[1], opt.json);
}

/* ---- golden ---------------------------------------------------------------------------------- */

typedef struct {
    const char *requests;
    int64_t make, seed;
    bool json;
} golden_options;

static int run_golden(int argc, char **argv)
{
    static const mr_option options[] = {
        MR_OPTION_STRING("requests", 'r', "FILE", golden_options, requests,
                         "JSONL: {fields, user?, candidates: [{fields, vectors}]}"),
        MR_OPTION_INT("make", 0, "N", golden_options, make, 1, 1000,
                      "without --requests: make N of them from a seed"),
        MR_OPTION_INT("seed", 0, "N", golden_options, seed, 0, 9e15, "seed of the made ones"),
        MR_OPTION_FLAG("json", 0, golden_options, json, "print JSON"),
        MR_OPTION_END,
    };
    static const mr_command_help help = {"bundle golden", "[options] BUNDLE",
                                         "Scores known requests with this build and writes their "
                                         "margins as golden.json; from then on "
                                         "every start of the bundle repeats them.",
                                         "  mixrank bundle golden --make 8 build/demo/bundle\n"};
    golden_options opt = {.make = 8, .seed = 1};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (n != 1)
        return mr_command_misuse(help.name, "give one bundle");
    mr_error err = {0};
    mr_status status =
        mr_bundle_write_golden(argv[1], opt.requests, (size_t)opt.make, (uint64_t)opt.seed, &err);
    return done(help.name, status, &err, "golden requests written for", argv[1], opt.json);
}

/* ---- verify, show ---------------------------------------------------------------------------- */

typedef struct {
    bool json;
} json_options;

static const mr_option only_json[] = {
    MR_OPTION_FLAG("json", 0, json_options, json, "print JSON"),
    MR_OPTION_END,
};

static int run_verify(int argc, char **argv)
{
    static const mr_command_help help = {
        "bundle verify", "[--json] BUNDLE",
        "Checks every file's SHA-256, the spaces, all parts and the golden requests.",
        "  mixrank bundle verify build/demo/bundle\n"};
    json_options opt = {0};
    int n = 0, code = 0;
    if (!mr_command_options(&help, only_json, argc, argv, &opt, &n, &code))
        return code;
    if (n != 1)
        return mr_command_misuse(help.name, "give one bundle");
    mr_error err = {0};
    mr_status status = mr_bundle_verify(argv[1], &err);
    return done(help.name, status, &err, "verified", argv[1], opt.json);
}

static void print_bundle(const mr_bundle *bundle)
{
    const mr_model_config *config = &bundle->llm->config;
    char space[MR_SPACE_TEXT];
    printf("%s %s, %s mode\n", bundle->name, bundle->version, bundle->mixed ? "mixed" : "text");
    printf("  llm         %s, %d layers, width %d, %d/%d heads of %d, vocabulary %d\n",
           mr_family_name(config->family), config->L, config->C, config->H, config->K, config->D,
           (int)config->V);
    printf("  numerics    %s\n", bundle->numerics_id);
    if (bundle->item.kind != MR_ENCODER_NONE) {
        mr_space_format(bundle->item.space, space);
        printf("  item space  %s, up to %d token%s of %zu\n", space, bundle->item.tokens,
               bundle->item.tokens == 1 ? "" : "s", bundle->item.dim);
        printf("  projector   %s\n", mr_projector_kind(bundle->item_projector));
    }
    if (bundle->user.kind != MR_ENCODER_NONE) {
        mr_space_format(bundle->user.space, space);
        printf("  user space  %s, up to %d %s%s\n", space, bundle->user.tokens,
               bundle->user.kind == MR_ENCODER_HISTORY ? "item" : "token",
               bundle->user.tokens == 1 ? "" : "s");
    }
    printf("  labels      yes %d, no %d\n", (int)bundle->yes_id, (int)bundle->no_id);
    if (bundle->untrained)
        printf("  %s\n", MR_UNTRAINED_NOTICE);
}

static int run_show(int argc, char **argv)
{
    static const mr_command_help help = {"bundle show", "[--json] BUNDLE",
                                         "Says what a bundle is: models, spaces, prompt, labels.",
                                         "  mixrank bundle show build/demo/bundle\n"};
    json_options opt = {0};
    int n = 0, code = 0;
    if (!mr_command_options(&help, only_json, argc, argv, &opt, &n, &code))
        return code;
    if (n != 1)
        return mr_command_misuse(help.name, "give one bundle");
    mr_error err = {0};
    mr_bundle *bundle = NULL;
    if (mr_bundle_load(&bundle, argv[1], 1, &err) != MR_OK)
        return mr_command_fail(help.name, &err);
    if (opt.json)
        mr_command_print_json(describe(bundle));
    else
        print_bundle(bundle);
    if (bundle->untrained)
        mr_command_warn_untrained(help.name, !opt.json);
    mr_bundle_close(bundle);
    return MR_EXIT_OK;
}

/* ---- from-reranker --------------------------------------------------------------------------- */

typedef struct {
    const char *instruction;
    int64_t max_length;
    bool link, force, json;
} reranker_options;

static int run_from_reranker(int argc, char **argv)
{
    static const mr_option options[] = {
        MR_OPTION_STRING("instruction", 0, "TEXT", reranker_options, instruction,
                         "default instruction; none: the published one"),
        MR_OPTION_INT("max-length", 0, "N", reranker_options, max_length, 64, 131072,
                      "longest prompt in tokens; documents are cut to fit"),
        MR_OPTION_FLAG("link", 0, reranker_options, link, "hard-link the weights"),
        MR_OPTION_FLAG("force", 0, reranker_options, force, "replace a bundle that is there"),
        MR_OPTION_FLAG("json", 0, reranker_options, json, "print JSON"),
        MR_OPTION_END,
    };
    static const mr_command_help help = {
        "bundle from-reranker", "[options] RERANKER_DIR OUT",
        "Makes a text bundle of a Qwen3-Reranker folder as downloaded, with the template that was "
        "published with it. It ranks texts, needs no store, and is the full-text teacher of a "
        "mixed "
        "bundle.",
        "  mixrank bundle from-reranker Qwen3-Reranker-0.6B reranker --link\n"
        "  mixrank rank -b reranker -i items.jsonl -q 'text editor'\n"};
    reranker_options opt = {.max_length = 2048};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (n != 2)
        return mr_command_misuse(help.name, "give the reranker's folder and the folder to create");
    mr_error err = {0};
    mr_status status = mr_bundle_from_reranker(argv[2], argv[1], opt.instruction,
                                               (size_t)opt.max_length, opt.link, opt.force, &err);
    return done(help.name, status, &err, "created", argv[2], opt.json);
}

#define SHAPES       "tiny, qwen3-0.6b, qwen2.5-0.5b, smollm2-135m or llama-3.2-1b"
#define LLAVA_SHAPES "llava-tiny or llava-1.5-7b"

/* ---- untrained ------------------------------------------------------------------------------- */

typedef struct {
    const char *shape;
    int64_t seed, item_tokens, user_tokens;
    bool force, json;
} untrained_options;

/* Not a bundle, but random weights too: what `mixrank caption` can be tried with. */
static int write_llava(const char *command, const mr_llava_shape *shape, const char *folder,
                       const untrained_options *opt)
{
    mr_error err = {0};
    mr_status status = MR_OK;
    if (mr_file_exists(folder) && !opt->force)
        status = MR_FAIL(&err, EXISTS, "'%s' is already there; --force replaces its files", folder);
    if (status == MR_OK)
        status = mr_llava_untrained_write(folder, shape, (uint64_t)opt->seed, &err);
    if (status != MR_OK)
        return mr_command_fail(command, &err);
    if (opt->json)
        mr_command_print_json(json_pack("{s:s, s:s, s:o, s:b}", "done", "created", "shape",
                                        shape->name, "folder",
                                        mr_command_json_text(mr_str_of(folder)), "untrained", 1));
    else
        printf("created %s, for mixrank caption\n", folder);
    return MR_EXIT_OK;
}

static int run_untrained(int argc, char **argv)
{
    static const mr_option options[] = {
        MR_OPTION_STRING("shape", 0, "NAME", untrained_options, shape,
                         SHAPES "; " LLAVA_SHAPES ": a folder for mixrank caption (14 GB)"),
        MR_OPTION_INT("seed", 0, "N", untrained_options, seed, 0, 9e15, "seed of the weights"),
        MR_OPTION_INT("item-tokens", 0, "T", untrained_options, item_tokens, 1, 50,
                      "embedding tokens of an item"),
        MR_OPTION_INT("user-tokens", 0, "N", untrained_options, user_tokens, 0, 256,
                      "history items that stand for a user; 0: none"),
        MR_OPTION_FLAG("force", 0, untrained_options, force, "replace a bundle that is there"),
        MR_OPTION_FLAG("json", 0, untrained_options, json, "print JSON"),
        MR_OPTION_END,
    };
    static const mr_command_help help = {
        "bundle untrained", "[options] OUT",
        "Makes a bundle with random weights and a byte-level tokenizer, to try the program and to "
        "measure real shapes. " MR_UNTRAINED_NOTICE ".",
        "  mixrank bundle untrained --shape tiny --seed 7 /tmp/bundle\n"};
    untrained_options opt = {.shape = "tiny", .seed = 1, .item_tokens = 1, .user_tokens = 16};
    int n = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n, &code))
        return code;
    if (n != 1)
        return mr_command_misuse(help.name, "give one folder to create");
    const mr_llava_shape *llava = mr_llava_shape_find(opt.shape);
    if (llava)
        return write_llava(help.name, llava, argv[1], &opt);
    const mr_untrained_shape *shape = mr_untrained_find(opt.shape);
    if (!shape)
        return mr_command_misuse(help.name, "--shape '%s' is not known; known are %s; %s",
                                 opt.shape, SHAPES, LLAVA_SHAPES);
    mr_error err = {0};
    const mr_untrained_bundle_options write = {.shape = shape,
                                               .dtype = shape->dtype,
                                               .seed = (uint64_t)opt.seed,
                                               .item_tokens = (int)opt.item_tokens,
                                               .user_tokens = (int)opt.user_tokens,
                                               .overwrite = opt.force};
    mr_status status = mr_untrained_bundle_write(argv[1], &write, &err);
    return done(help.name, status, &err, "created", argv[1], opt.json);
}

int mr_cmd_bundle(int argc, char **argv)
{
    static const mr_command commands[] = {
        {"create", run_create, "assemble a bundle from its parts"},
        {"golden", run_golden, "write known requests and their margins"},
        {"verify", run_verify, "check digests, spaces, parts and golden requests"},
        {"show", run_show, "say what a bundle is"},
        {"from-reranker", run_from_reranker, "a text bundle of a Qwen3-Reranker folder"},
        {"untrained", run_untrained, "a bundle with random weights, to try and to measure"},
        {NULL, NULL, NULL},
    };
    return mr_command_dispatch("mixrank bundle",
                               "Model packages: one folder that says how items are "
                               "ranked (docs/bundle.md).",
                               commands, argc, argv);
}
