/* plot.c - see plot.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/plot.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/utf8.h"

#define WIDTH     860
#define HEIGHT    400
#define LEFT      64.0
#define RIGHT     796.0
#define TOP       56.0
#define BOTTOM    352.0
#define TICKS     6 /* about so many on an axis */
#define LOG_RATIO 30.0

typedef struct {
    double low, high;       /* what the axis spans */
    double at_low, at_high; /* pixels */
    bool log;
} axis;

static double place(const axis *a, double value)
{
    const double share = a->log ? log(value / a->low) / log(a->high / a->low)
                                : (value - a->low) / (a->high - a->low);
    return a->at_low + share * (a->at_high - a->at_low);
}

/* The step of 1, 2 or 5 times a power of ten that cuts a span into about n. */
static double nice_step(double span, int n)
{
    const double raw = span / n, power = pow(10, floor(log10(raw)));
    const double lead = raw / power;
    return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

static void label(double value, double step, char out[32])
{
    if (value == 0) {
        snprintf(out, 32, "0");
    } else if (fabs(value) >= 1e6) {
        snprintf(out, 32, "%gM", value / 1e6);
    } else if (fabs(value) >= 1e4) {
        snprintf(out, 32, "%gk", value / 1e3);
    } else if (fabs(value) < 1e-3) {
        snprintf(out, 32, "%.3g", value);
    } else {
        const double digits = ceil(-log10(step) - 1e-9);
        snprintf(out, 32, "%.*f", digits > 0 ? (int)digits : 0, value);
    }
}

static void tick(mr_strbuf *out, const axis *a, bool vertical, double value, double step)
{
    char text[32];
    const double at = place(a, value);
    label(value, step, text);
    if (vertical)
        mr_strbuf_printf(out,
                         "<path class=\"grid\" d=\"M%g %.1fH%g\"/>"
                         "<text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                         LEFT, at, RIGHT, LEFT - 8, at + 4, text);
    else
        mr_strbuf_printf(out,
                         "<path class=\"axis\" d=\"M%.1f %gv4\"/>"
                         "<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%s</text>\n",
                         at, BOTTOM, at, BOTTOM + 18, text);
}

static void linear_ticks(mr_strbuf *out, const axis *a, bool vertical)
{
    const double step = nice_step(a->high - a->low, TICKS);
    const double first = ceil(a->low / step - 1e-9);
    for (int i = 0; i <= 2 * TICKS; i++) {
        const double value = (first + i) * step;
        if (value > a->high + step * 1e-6)
            break;
        tick(out, a, vertical, value, step);
    }
}

/* 1, 2 and 5 of each power of ten; a span of under two has too few of these. */
static void log_ticks(mr_strbuf *out, const axis *a)
{
    static const double leads[] = {1, 2, 5};
    if (a->high / a->low < 20) {
        linear_ticks(out, a, true);
        return;
    }
    const double decades = log10(a->high / a->low);
    for (double power = floor(log10(a->low)); power <= log10(a->high); power++) {
        for (int i = 0; i < (decades > 3 ? 1 : 3); i++) {
            const double value = leads[i] * pow(10, power);
            if (value >= a->low * (1 - 1e-9) && value <= a->high * (1 + 1e-9))
                tick(out, a, true, value, pow(10, power));
        }
    }
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void include(axis *a, double value)
{
    a->low = value < a->low ? value : a->low;
    a->high = value > a->high ? value : a->high;
}

/* All means and valid losses, and the losses of steps but for the outermost 1 in 50: one bad step
 * must not flatten the rest. */
static mr_status loss_axis(const mr_journal_rows *rows, mr_plot_scale scale, axis *out,
                           mr_error *err)
{
    axis a = {HUGE_VAL, -HUGE_VAL, BOTTOM, TOP, false};
    double *sorted = malloc((rows->n ? rows->n : 1) * sizeof *sorted);
    if (!sorted)
        return MR_FAIL(err, NO_MEMORY, "a plot of %zu steps", rows->n);
    for (size_t i = 0; i < rows->n; i++) {
        const mr_journal_row *row = &rows->row[i];
        sorted[i] = row->loss;
        include(&a, row->smooth);
        if (!isnan(row->valid))
            include(&a, row->valid);
    }
    if (rows->n) {
        qsort(sorted, rows->n, sizeof *sorted, compare_doubles);
        include(&a, sorted[rows->n / 50]);
        include(&a, sorted[rows->n - 1 - rows->n / 50]);
    } else {
        a.low = 0;
        a.high = 1;
    }
    const bool positive = a.low > 0 && (rows->n == 0 || sorted[0] > 0);
    free(sorted);
    if (scale == MR_PLOT_LOG && !positive)
        return MR_FAIL(err, INVALID, "a logarithmic plot needs losses above 0; the smallest is %g",
                       a.low);
    a.log =
        scale == MR_PLOT_LOG || (scale == MR_PLOT_AUTO && positive && a.high / a.low > LOG_RATIO);
    if (a.log) {
        const double room = pow(a.high / a.low, 0.04);
        a.low /= room > 1 ? room : 1.1;
        a.high *= room > 1 ? room : 1.1;
    } else {
        double room = 0.04 * (a.high - a.low);
        if (!(room > 0)) /* one value */
            room = a.low != 0 ? 0.1 * fabs(a.low) : 1;
        a.low -= room;
        a.high += room;
    }
    *out = a;
    return MR_OK;
}

/* Bounded like the picture, so that what lies far out is a number that a reader of SVG takes. */
static double place_loss(const axis *a, double loss)
{
    double y = a->log && loss <= 0 ? 2 * BOTTOM : place(a, loss);
    y = y < TOP - 20 ? TOP - 20 : y;
    return y > BOTTOM + 20 ? BOTTOM + 20 : y;
}

static int column_of(const axis *x, int64_t step)
{
    return (int)(place(x, (double)step) - LEFT);
}

/* The lowest and the highest loss of each column. */
static void draw_dots(mr_strbuf *out, const mr_journal_rows *rows, const axis *x, const axis *y)
{
    mr_strbuf_puts(out, "<path class=\"dots\" d=\"");
    for (size_t i = 0; i < rows->n;) {
        const mr_journal_row *low = &rows->row[i], *high = low;
        const int column = column_of(x, low->step);
        for (i++; i < rows->n && column_of(x, rows->row[i].step) == column; i++) {
            low = rows->row[i].loss < low->loss ? &rows->row[i] : low;
            high = rows->row[i].loss > high->loss ? &rows->row[i] : high;
        }
        mr_strbuf_printf(out, "M%.1f %.1fh0", place(x, (double)low->step),
                         place_loss(y, low->loss));
        if (high != low)
            mr_strbuf_printf(out, "M%.1f %.1fh0", place(x, (double)high->step),
                             place_loss(y, high->loss));
    }
    mr_strbuf_puts(out, "\"/>\n");
}

typedef double (*value_of)(const mr_journal_row *row);

static double smooth_of(const mr_journal_row *row)
{
    return row->smooth;
}

static double valid_of(const mr_journal_row *row)
{
    return row->valid;
}

static double rate_of(const mr_journal_row *row)
{
    return row->rate;
}

/* A line through the last value of each column that has one. */
static void draw_line(mr_strbuf *out, const char *class, const mr_journal_rows *rows, const axis *x,
                      const axis *y, value_of value)
{
    bool any = false;
    mr_strbuf_printf(out, "<path class=\"%s\" d=\"", class);
    for (size_t i = 0; i < rows->n;) {
        const int column = column_of(x, rows->row[i].step);
        const mr_journal_row *last = NULL;
        for (; i < rows->n && column_of(x, rows->row[i].step) == column; i++)
            last = isnan(value(&rows->row[i])) ? last : &rows->row[i];
        if (last)
            mr_strbuf_printf(out, "%s%.1f %.1f", any ? "L" : "M", place(x, (double)last->step),
                             place_loss(y, value(last)));
        any = any || last;
    }
    mr_strbuf_puts(out, "\"/>\n");
}

static void draw_rings(mr_strbuf *out, const mr_journal_rows *rows, const axis *x, const axis *y)
{
    int shown = -16;
    for (size_t i = 0; i < rows->n; i++) {
        const mr_journal_row *row = &rows->row[i];
        if (isnan(row->valid) || column_of(x, row->step) < shown + 8)
            continue;
        shown = column_of(x, row->step);
        mr_strbuf_printf(out, "<circle class=\"ring\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n",
                         place(x, (double)row->step), place_loss(y, row->valid));
    }
}

static void put_escaped(mr_strbuf *out, const char *text)
{
    const size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        uint32_t code = 0;
        const size_t n = mr_utf8_decode(text + i, len - i, &code);
        if (n == 0 || code < 0x20 || code == 0x7f || code == 0xfffe || code == 0xffff)
            mr_strbuf_puts(out, "?");
        else if (code == '&' || code == '<' || code == '>' || code == '"')
            mr_strbuf_puts(out, code == '&'   ? "&amp;"
                                : code == '<' ? "&lt;"
                                : code == '>' ? "&gt;"
                                              : "&quot;");
        else
            mr_strbuf_append(out, text + i, n);
        i += n ? n : 1;
    }
}

static void draw_head(mr_strbuf *out, const char *title)
{
    mr_strbuf_printf(out,
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                     "height=\"%d\" role=\"img\">\n<title>",
                     WIDTH, HEIGHT, WIDTH, HEIGHT);
    put_escaped(out, title);
    mr_strbuf_puts(
        out, "</title>\n<style>\n" /* without variables, which not every reader of SVG knows */
             "text{font:12px system-ui,sans-serif;fill:#656d76}\n"
             ".title{font-size:15px;font-weight:600;fill:#1f2328}\n"
             "path{fill:none;stroke-width:2;stroke-linejoin:round}.page{fill:#fff}\n"
             ".grid{stroke:#e4e7eb;stroke-width:1}.axis{stroke:#656d76;stroke-width:1}\n"
             ".dots{stroke:#0b62c4;stroke-width:2.4;stroke-linecap:round;opacity:.45}\n"
             ".line{stroke:#0b62c4}.valid{stroke:#c4480b}\n"
             ".ring{fill:#fff;stroke:#c4480b;stroke-width:2}\n"
             ".rate{stroke:#8b949e;stroke-width:1;stroke-dasharray:2 3}\n"
             "@media(prefers-color-scheme:dark){text{fill:#8d96a0}.title{fill:#e6edf3}"
             ".page,.ring{fill:#0d1117}.grid{stroke:#272d35}.axis{stroke:#8d96a0}"
             ".line,.dots{stroke:#58a6ff}.valid,.ring{stroke:#ff9a5c}.rate{stroke:#6e7681}}\n"
             "</style>\n");
    mr_strbuf_printf(out, "<rect class=\"page\" width=\"%d\" height=\"%d\"/>\n", WIDTH, HEIGHT);
    mr_strbuf_printf(out, "<text class=\"title\" x=\"%g\" y=\"24\">", LEFT);
    put_escaped(out, title);
    mr_strbuf_puts(out, "</text>\n");
}

static void legend_entry(mr_strbuf *out, double *x, const char *class, const char *text)
{
    mr_strbuf_printf(out, "<path class=\"%s\" d=\"M%g 40h%d\"/><text x=\"%g\" y=\"44\">%s</text>\n",
                     class, *x, strcmp(class, "dots") == 0 ? 0 : 18, *x + 24, text);
    *x += 40 + 6.4 * (double)strlen(text);
}

static void draw_legend(mr_strbuf *out, const mr_journal_rows *rows)
{
    double x = LEFT;
    char text[64];
    const mr_journal_row *last = &rows->row[rows->n - 1];
    double valid = (double)NAN;
    for (size_t i = 0; i < rows->n; i++)
        valid = isnan(rows->row[i].valid) ? valid : rows->row[i].valid;
    snprintf(text, sizeof text, "loss, running mean: %.4g", last->smooth);
    legend_entry(out, &x, "line", text);
    legend_entry(out, &x, "dots", "loss of a step");
    if (!isnan(valid)) {
        snprintf(text, sizeof text, "valid loss: %.4g", valid);
        legend_entry(out, &x, "valid", text);
    }
    legend_entry(out, &x, "rate", "learning rate (right)");
}

static void draw_rate(mr_strbuf *out, const mr_journal_rows *rows, const axis *x)
{
    axis rate = {0, 0, BOTTOM, TOP, false};
    for (size_t i = 0; i < rows->n; i++)
        include(&rate, rows->row[i].rate);
    if (!(rate.high > 0))
        rate.high = 1;
    const double step = nice_step(rate.high, 3);
    rate.high *= 1.08;
    draw_line(out, "rate", rows, x, &rate, rate_of);
    for (int i = 0; i <= 5 && i * step <= rate.high; i++)
        mr_strbuf_printf(out, "<text x=\"%g\" y=\"%.1f\">%.3g</text>\n", RIGHT + 8,
                         place(&rate, i * step) + 4, i * step);
}

mr_status mr_plot_render(const mr_journal_rows *rows, const mr_plot_options *opt, mr_strbuf *out,
                         mr_error *err)
{
    axis x = {0, 1, LEFT, RIGHT, false}, y;
    mr_status status = loss_axis(rows, opt->scale, &y, err);
    if (status != MR_OK)
        return status;
    if (rows->n)
        x.high = (double)rows->row[rows->n - 1].step;
    if (opt->steps > 0 && (double)opt->steps > x.high)
        x.high = (double)opt->steps;
    draw_head(out, opt->title ? opt->title : "training");
    if (y.log)
        log_ticks(out, &y);
    else
        linear_ticks(out, &y, true);
    linear_ticks(out, &x, false);
    mr_strbuf_printf(out,
                     "<path class=\"axis\" d=\"M%g %gV%gH%g\"/>\n"
                     "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">step</text>\n",
                     LEFT, TOP, BOTTOM, RIGHT, (LEFT + RIGHT) / 2, BOTTOM + 38);
    if (rows->n) {
        draw_legend(out, rows);
        draw_rate(out, rows, &x);
        mr_strbuf_printf(
            out,
            "<clipPath id=\"plot\"><rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\"/>"
            "</clipPath>\n<g clip-path=\"url(#plot)\">\n",
            LEFT, TOP - 4, RIGHT - LEFT + 4, BOTTOM - TOP + 4);
        draw_dots(out, rows, &x, &y);
        draw_line(out, "line", rows, &x, &y, smooth_of);
        draw_line(out, "valid", rows, &x, &y, valid_of);
        draw_rings(out, rows, &x, &y);
        mr_strbuf_puts(out, "</g>\n");
    } else {
        mr_strbuf_printf(out, "<text x=\"%g\" y=\"44\">no step has been logged</text>\n", LEFT);
    }
    mr_strbuf_puts(out, "</svg>\n");
    return out->failed ? MR_FAIL(err, NO_MEMORY, "a plot of %zu steps", rows->n) : MR_OK;
}

/* The last part of a path, without slashes at its end; NULL: it has no name of its own. */
static char *name_of(mr_arena *arena, const char *folder)
{
    size_t end = strlen(folder);
    while (end > 0 && folder[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && folder[begin - 1] != '/')
        begin--;
    const bool own = end > begin && strspn(folder + begin, ".") < end - begin;
    return own ? mr_arena_strndup(arena, folder + begin, end - begin) : NULL;
}

mr_status mr_plot_journal(const char *folder, mr_error *err)
{
    mr_arena arena = {0};
    mr_journal_rows rows = {0};
    mr_strbuf svg = {0};
    const mr_plot_options opt = {.title = name_of(&arena, folder)};
    const char *journal = mr_path_join(&arena, folder, MR_JOURNAL_NAME);
    const char *path = mr_path_join(&arena, folder, MR_PLOT_NAME);
    mr_status status = journal && path ? mr_journal_read(&rows, journal, err)
                                       : MR_FAIL(err, NO_MEMORY, "the plot of '%s'", folder);
    if (status == MR_OK)
        status = mr_plot_render(&rows, &opt, &svg, err);
    if (status == MR_OK)
        status = mr_file_write(path, svg.data, svg.len, err);
    mr_strbuf_release(&svg);
    mr_journal_rows_free(&rows);
    mr_arena_done(&arena);
    return status;
}
