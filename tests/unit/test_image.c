/* test_image.c - pictures against Pillow and CLIP's image processor, to the last bit for PNG and
 * BMP.
 *
 * Reference data: data/images, made by data/generator/images.py.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/rng.h"
#include "encoders/image.h"
#include "engine/safetensors.h"
#include "tests/support.h"

typedef struct {
    json_t *rows;
    mr_safetensors *raw;
} reference;

static int setup(void **state)
{
    static reference ref;
    mr_error err = {0};
    assert_status(
        mr_json_load_file(&ref.rows, "data/images/expected.json", MR_JSON_MAX_CONFIG, &err), MR_OK,
        &err);
    assert_status(mr_safetensors_open(&ref.raw, "data/images/expected.safetensors", &err), MR_OK,
                  &err);
    *state = &ref;
    return 0;
}

static int teardown(void **state)
{
    reference *ref = *state;
    json_decref(ref->rows);
    mr_safetensors_close(ref->raw);
    return 0;
}

static const char *text(const json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

static mr_file_map map_picture(const char *file)
{
    mr_file_map map = {0};
    mr_error err = {0};
    assert_status(mr_file_map_open(&map, test_path("data/images", file), &err), MR_OK, &err);
    return map;
}

static void decode(mr_image *image, const char *file, const mr_image_options *opt)
{
    mr_file_map map = map_picture(file);
    mr_error err = {0};
    assert_status(mr_image_decode(image, file, (mr_bytes){map.data, map.len}, opt, &err), MR_OK,
                  &err);
    mr_file_map_close(&map);
}

static void assert_hash(const void *data, size_t len, const char *want, const char *what)
{
    char got[MR_SHA256_HEX];
    mr_error err = {0};
    assert_status(mr_hash_sha256_hex(data, len, got, &err), MR_OK, &err);
    if (!want || strcmp(got, want) != 0)
        fail_msg("%s: SHA-256 of %zu bytes is %s, the reference's is %s", what, len, got,
                 want ? want : "not there");
}

static bool is_jpeg(const json_t *row)
{
    return strstr(text(row, "file"), ".jpg") != NULL;
}

/* "37-24" and "336-336-padded" */
static mr_image_target target_of(const char *key)
{
    mr_image_target target = mr_image_target_clip(1);
    assert_int_equal(sscanf(key, "%d-%d", &target.edge, &target.crop), 2);
    target.pad_to_square = strstr(key, "-padded") != NULL;
    return target;
}

static void png_and_bmp_decode_to_pillows_bytes(void **state)
{
    const reference *ref = *state;
    size_t i, compared = 0;
    json_t *row;
    json_array_foreach(ref->rows, i, row)
    {
        if (is_jpeg(row) || text(row, "refused"))
            continue;
        mr_image image = {0};
        decode(&image, text(row, "file"), NULL);
        assert_int_equal(image.width, json_integer_value(json_object_get(row, "width")));
        assert_int_equal(image.height, json_integer_value(json_object_get(row, "height")));
        assert_hash(image.rgb, (size_t)image.width * (size_t)image.height * 3, text(row, "rgb"),
                    text(row, "file"));
        mr_image_release(&image);
        compared++;
    }
    assert_int_equal(compared, 43);
}

static void transparent_pngs_over_white_are_as_transformers_has_them(void **state)
{
    const reference *ref = *state;
    const mr_image_options over_white = {.over_white = true};
    size_t i, transparent = 0;
    json_t *row;
    json_array_foreach(ref->rows, i, row)
    {
        const char *want = text(row, "over_white");
        if (!want)
            continue;
        mr_image image = {0};
        decode(&image, text(row, "file"), &over_white);
        assert_hash(image.rgb, (size_t)image.width * (size_t)image.height * 3, want,
                    text(row, "file"));
        mr_image_release(&image);

        mr_file_map map = map_picture(text(row, "file"));
        mr_image_info info;
        mr_error err = {0};
        assert_status(mr_image_inspect(&info, "x", (mr_bytes){map.data, map.len}, NULL, &err),
                      MR_OK, &err);
        mr_file_map_close(&map);
        if (strcmp(want, text(row, "rgb")) != 0)
            assert_true(info.has_alpha);
        transparent += info.has_alpha;
    }
    assert_int_equal(transparent, 8);
}

/* All targets of a picture: uint8 after the crop by themselves, floats in one hash. */
static void check_targets(const json_t *row, const mr_image *image)
{
    char what[160];
    const char *key;
    json_t *want;
    float *values = NULL;
    size_t n_values = 0;
    mr_error err = {0};
    json_object_foreach(json_object_get(row, "pixels"), key, want)
    {
        const mr_image_target target = target_of(key);
        const size_t n = 3 * (size_t)target.crop * (size_t)target.crop;
        uint8_t *pixels = malloc(n);
        assert_non_null(pixels);
        assert_status(mr_image_resize_crop(image, &target, pixels, &err), MR_OK, &err);
        snprintf(what, sizeof what, "%s at %s", text(row, "file"), key);
        assert_hash(pixels, n, json_string_value(want), what);
        free(pixels);

        values = realloc(values, (n_values + n) * sizeof *values);
        assert_non_null(values);
        assert_status(mr_image_preprocess(image, &target, values + n_values, &err), MR_OK, &err);
        n_values += n;
    }
    snprintf(what, sizeof what, "pixel values of %s", text(row, "file"));
    assert_hash(values, n_values * sizeof *values, text(row, "values"), what);
    free(values);
}

static void resized_pixels_and_values_equal_clips_processor_to_the_last_bit(void **state)
{
    const reference *ref = *state;
    size_t i, compared = 0;
    json_t *row;
    json_array_foreach(ref->rows, i, row)
    {
        if (is_jpeg(row) || text(row, "refused"))
            continue;
        mr_image image = {0};
        decode(&image, text(row, "file"), NULL);
        check_targets(row, &image);
        mr_image_release(&image);
        compared++;
    }
    assert_int_equal(compared, 43);
}

/* The hashes say that something differs, this says what. */
static void raw_pixels_and_values_of_one_picture_agree_element_by_element(void **state)
{
    const reference *ref = *state;
    mr_image image = {0};
    decode(&image, "rgb-61x47.png", NULL);
    size_t compared = 0;
    for (size_t i = 0; i < mr_safetensors_count(ref->raw); i++) {
        const mr_tensor *want = mr_safetensors_at(ref->raw, i);
        char key[32], kind[16];
        if (sscanf(want->name, "rgb-61x47.png/%31[^/]/%15s", key, kind) != 2)
            continue;
        const mr_image_target target = target_of(key);
        const size_t n = 3 * (size_t)target.crop * (size_t)target.crop;
        mr_error err = {0};
        if (strcmp(kind, "values") == 0) {
            float *values = malloc(n * sizeof *values);
            assert_non_null(values);
            assert_status(mr_image_preprocess(&image, &target, values, &err), MR_OK, &err);
            assert_int_equal(want->bytes, n * sizeof *values);
            assert_floats_near(values, (const float *)want->data, n, 0);
            free(values);
        } else {
            uint8_t *pixels = malloc(n);
            assert_non_null(pixels);
            assert_status(mr_image_resize_crop(&image, &target, pixels, &err), MR_OK, &err);
            assert_int_equal(want->bytes, n);
            assert_memory_equal(pixels, want->data, n);
            free(pixels);
        }
        compared++;
    }
    assert_int_equal(compared, 10);
    mr_image_release(&image);
}

typedef struct {
    double worst_mean;
    int worst;
} distance;

static void compare_bytes(distance *d, const uint8_t *got, const mr_tensor *want)
{
    const uint8_t *reference_bytes = want->data;
    double sum = 0;
    int worst = 0;
    for (size_t i = 0; i < want->bytes; i++) {
        const int off = abs(got[i] - reference_bytes[i]);
        sum += off;
        worst = off > worst ? off : worst;
    }
    const double mean = sum / (double)want->bytes;
    /* In the last column of 4:2:2, stb_image gives the weight of the last chroma sample to the one
     * before it. */
    const int most = strstr(want->name, "-422") ? 41 : 3;
    if (mean > 0.25 || worst > most)
        fail_msg("%s: mean difference %.3f, largest %d; expected at most 0.25 and %d", want->name,
                 mean, worst, most);
    d->worst_mean = mean > d->worst_mean ? mean : d->worst_mean;
    d->worst = worst > d->worst ? worst : d->worst;
}

static void jpegs_are_near_pillow_before_and_after_the_resize(void **state)
{
    const reference *ref = *state;
    distance decoded = {0}, resized = {0};
    size_t i, compared = 0;
    json_t *row;
    json_array_foreach(ref->rows, i, row)
    {
        char name[96];
        if (!is_jpeg(row) || text(row, "refused"))
            continue;
        mr_image image = {0};
        decode(&image, text(row, "file"), NULL);
        snprintf(name, sizeof name, "%s/rgb", text(row, "file"));
        const mr_tensor *want = mr_safetensors_find(ref->raw, name);
        assert_non_null(want);
        assert_int_equal(want->bytes, 3 * image.width * image.height);
        compare_bytes(&decoded, image.rgb, want);

        static const char *const keys[] = {"28-28", "30-30-padded"};
        for (size_t k = 0; k < 2; k++) {
            uint8_t pixels[3 * 30 * 30];
            const mr_image_target target = target_of(keys[k]);
            mr_error err = {0};
            assert_status(mr_image_resize_crop(&image, &target, pixels, &err), MR_OK, &err);
            snprintf(name, sizeof name, "%s/%s/pixels", text(row, "file"), keys[k]);
            want = mr_safetensors_find(ref->raw, name);
            assert_non_null(want);
            compare_bytes(&resized, pixels, want);
        }
        mr_image_release(&image);
        compared++;
    }
    assert_int_equal(compared, 11);
    print_message("decoded: mean %.3f, largest %d; resized: mean %.3f, largest %d\n",
                  decoded.worst_mean, decoded.worst, resized.worst_mean, resized.worst);
}

static void what_pillow_reads_and_we_do_not_is_refused_by_name(void **state)
{
    const reference *ref = *state;
    size_t i, refused = 0;
    json_t *row;
    json_array_foreach(ref->rows, i, row)
    {
        if (!text(row, "refused"))
            continue;
        mr_file_map map = map_picture(text(row, "file"));
        mr_image image = {0};
        mr_error err = {0};
        assert_status(
            mr_image_decode(&image, text(row, "file"), (mr_bytes){map.data, map.len}, NULL, &err),
            MR_UNSUPPORTED, &err);
        assert_contains(err.message, text(row, "file"));
        assert_contains(err.message, text(row, "refused"));
        assert_null(image.rgb);
        mr_file_map_close(&map);
        refused++;
    }
    assert_int_equal(refused, 2);
}

static void the_first_bytes_decide_the_format_not_the_name(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        mr_image_format format;
        const char *name;
    } row[] = {
        {"rgb-28x28.png", MR_IMAGE_PNG, "PNG"},
        {"jpeg-444.jpg", MR_IMAGE_JPEG, "JPEG"},
        {"bmp8.bmp", MR_IMAGE_BMP, "BMP"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_file_map map = map_picture(row[i].file);
        mr_image_info info;
        mr_error err = {0};
        assert_status(
            mr_image_inspect(&info, "photo.gif", (mr_bytes){map.data, map.len}, NULL, &err), MR_OK,
            &err);
        assert_int_equal(info.format, row[i].format);
        assert_string_equal(mr_image_format_name(info.format), row[i].name);
        mr_file_map_close(&map);
    }
}

/* The orientation tag of this file says: turn by 90 degrees. */
static void exif_orientation_is_not_applied(void **state)
{
    (void)state;
    mr_image image = {0};
    decode(&image, "jpeg-orientation.jpg", NULL);
    assert_int_equal(image.width, 48);
    assert_int_equal(image.height, 30);
    mr_image_release(&image);
}

/* Filtering a whole padded square must be the same as never making it. */
static void padding_first_and_cropping_after_agree_with_a_square_made_by_hand(void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(11);
    static const int sizes[][2] = {{1, 1}, {5, 3}, {3, 70}, {90, 7}, {64, 63}, {2, 256}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size_t w = (size_t)sizes[i][0], h = (size_t)sizes[i][1], side = w > h ? w : h;
        mr_image image = {(int)w, (int)h, malloc(3 * w * h)};
        mr_image square = {(int)side, (int)side, malloc(3 * side * side)};
        assert_true(image.rgb && square.rgb);
        for (size_t j = 0; j < 3 * w * h; j++)
            image.rgb[j] = (uint8_t)mr_rng_below(&rng, 256);
        for (size_t j = 0; j < side * side; j++)
            memcpy(square.rgb + 3 * j, (const uint8_t[]){122, 116, 104}, 3);
        for (size_t y = 0; y < h; y++)
            memcpy(square.rgb + ((y + (side - h) / 2) * side + (side - w) / 2) * 3,
                   image.rgb + y * w * 3, 3 * w);
        for (int size = 1; size < 40; size += 6) {
            uint8_t *got = malloc(3 * (size_t)(size * size)),
                    *want = malloc(3 * (size_t)(size * size));
            mr_image_target target = mr_image_target_clip(size);
            mr_error err = {0};
            assert_true(got && want);
            assert_status(mr_image_resize_crop(&square, &target, want, &err), MR_OK, &err);
            target.pad_to_square = true;
            assert_status(mr_image_resize_crop(&image, &target, got, &err), MR_OK, &err);
            assert_memory_equal(got, want, 3 * (size_t)(size * size));
            free(got);
            free(want);
        }
        free(image.rgb);
        free(square.rgb);
    }
}

static void targets_outside_their_bounds_are_refused(void **state)
{
    (void)state;
    uint8_t rgb[3] = {1, 2, 3}, pixels[3];
    float values[3];
    const mr_image image = {1, 1, rgb};
    static const struct {
        int edge, crop;
        double mean, std;
        const char *message;
    } row[] = {
        {0, 1, 0.5, 0.5, "edge 0 and crop 1"}, {1, -4, 0.5, 0.5, "crop -4"},
        {4097, 1, 0.5, 0.5, "from 1 to 4096"}, {1, 1, 1.5, 0.5, "mean 1.5"},
        {1, 1, 0.5, 0, "deviation above 0"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_image_target target = mr_image_target_clip(1);
        mr_error err = {0};
        target.edge = row[i].edge;
        target.crop = row[i].crop;
        target.mean[1] = row[i].mean;
        target.std[2] = row[i].std;
        assert_status(mr_image_resize_crop(&image, &target, pixels, &err), MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
        assert_status(mr_image_preprocess(&image, &target, values, &err), MR_INVALID, &err);
    }
}

static void preprocessor_configs_of_published_folders_are_understood(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int edge, crop;
        bool pad;
        double mean;
    } row[] = {
        {"{}", 336, 336, false, 0.48145466},
        {"{\"size\": 224, \"crop_size\": 224, \"do_center_crop\": true}", 224, 224, false,
         0.48145466},
        {"{\"size\": {\"shortest_edge\": 224}, \"crop_size\": {\"height\": 200, \"width\": 200},"
         "\"resample\": 3, \"rescale_factor\": 0.00392156862745098,"
         "\"image_mean\": [0.5, 0.5, 0.5], \"image_std\": [0.5, 0.5, 0.5]}",
         224, 200, false, 0.5},
        {"{\"do_pad\": true, \"do_rescale\": true, \"do_convert_rgb\": true}", 336, 336, true,
         0.48145466},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        json_t *root = NULL;
        mr_image_target target;
        mr_error err = {0};
        assert_status(mr_json_parse(&root, "p.json", mr_str_of(row[i].text), &err), MR_OK, &err);
        assert_status(mr_image_target_parse(&target, "p.json", root, 336, &err), MR_OK, &err);
        assert_int_equal(target.edge, row[i].edge);
        assert_int_equal(target.crop, row[i].crop);
        assert_int_equal(target.pad_to_square, row[i].pad);
        assert_true(target.mean[0] == row[i].mean);
        assert_true((float)target.rescale == (float)(1.0 / 255));
        json_decref(root);
    }
}

static void preprocessor_configs_that_are_not_computed_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        mr_status status;
        const char *message;
    } row[] = {
        {"{\"do_resize\": false}", MR_UNSUPPORTED, "'do_resize' is false"},
        {"{\"do_center_crop\": false}", MR_UNSUPPORTED, "'do_center_crop'"},
        {"{\"do_normalize\": false}", MR_UNSUPPORTED, "'do_normalize'"},
        {"{\"resample\": 2}", MR_UNSUPPORTED, "'resample' is 2"},
        {"{\"size\": {\"height\": 224, \"width\": 224}}", MR_UNSUPPORTED, "'size' is 224 x 224"},
        {"{\"size\": {\"shortest_edge\": 224, \"longest_edge\": 300}}", MR_UNSUPPORTED,
         "longest edge"},
        {"{\"crop_size\": {\"height\": 224, \"width\": 225}}", MR_UNSUPPORTED, "224 x 225"},
        {"{\"size\": 0}", MR_INVALID, "'size'"},
        {"{\"size\": {\"shortest_edge\": 9000}}", MR_INVALID, "'shortest_edge'"},
        {"{\"image_mean\": [0.5, 0.5]}", MR_INVALID, "'image_mean' must be three numbers"},
        {"{\"image_std\": [0.5, 0, 0.5]}", MR_INVALID, "'image_std'"},
        {"{\"image_mean\": [0.5, \"a\", 0.5]}", MR_INVALID, "'image_mean'"},
        {"{\"do_pad\": 1}", MR_INVALID, "'do_pad'"},
        {"[]", MR_INVALID, "p.json"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        json_t *root = NULL;
        mr_image_target target;
        mr_error err = {0};
        assert_status(mr_json_parse(&root, "p.json", mr_str_of(row[i].text), &err), MR_OK, &err);
        assert_status(mr_image_target_parse(&target, "p.json", root, 336, &err), row[i].status,
                      &err);
        assert_contains(err.message, row[i].message);
        json_decref(root);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(png_and_bmp_decode_to_pillows_bytes),
        cmocka_unit_test(transparent_pngs_over_white_are_as_transformers_has_them),
        cmocka_unit_test(resized_pixels_and_values_equal_clips_processor_to_the_last_bit),
        cmocka_unit_test(raw_pixels_and_values_of_one_picture_agree_element_by_element),
        cmocka_unit_test(jpegs_are_near_pillow_before_and_after_the_resize),
        cmocka_unit_test(what_pillow_reads_and_we_do_not_is_refused_by_name),
        cmocka_unit_test(the_first_bytes_decide_the_format_not_the_name),
        cmocka_unit_test(exif_orientation_is_not_applied),
        cmocka_unit_test(padding_first_and_cropping_after_agree_with_a_square_made_by_hand),
        cmocka_unit_test(targets_outside_their_bounds_are_refused),
        cmocka_unit_test(preprocessor_configs_of_published_folders_are_understood),
        cmocka_unit_test(preprocessor_configs_that_are_not_computed_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
