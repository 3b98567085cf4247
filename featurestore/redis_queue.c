/* redis_queue.c - the commands of a node: which wait, which are under way, and whether any may go.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "core/clock.h"
#include "featurestore/redis_node_private.h"

#define BREAKER_FAILURES 5
#define BREAKER_OPEN_US  INT64_C(200000)
#define FIRST_PLACES     256
#define GRACE_US         INT64_C(100000)

/* ---- breaker --------------------------------------------------------------------------------- */

void mr_redis_breaker_set(mr_redis_node *node, int state)
{
    node->breaker.state = state;
    if (state == OPEN)
        node->breaker.opened_us = mr_clock_monotonic_us();
    atomic_store(&node->shown_breaker, state);
}

void mr_redis_breaker_failed(mr_redis_node *node)
{
    if (node->breaker.failures < BREAKER_FAILURES)
        node->breaker.failures++;
    if (node->breaker.state == HALF_OPEN || node->breaker.failures >= BREAKER_FAILURES)
        mr_redis_breaker_set(node, OPEN);
    node->breaker.probe = NULL;
}

static void count_answer(mr_redis_node *node)
{
    node->breaker.failures = 0;
    node->breaker.probe = NULL;
    if (node->breaker.state != CLOSED)
        mr_redis_breaker_set(node, CLOSED);
}

/* Whether an impatient command may go (or wait) now. */
static bool breaker_lets_through(mr_redis_node *node, mr_redis_command *command)
{
    if (node->breaker.state == OPEN && node->state == READY &&
        mr_clock_monotonic_us() - node->breaker.opened_us >= BREAKER_OPEN_US)
        mr_redis_breaker_set(node, HALF_OPEN);
    if (node->breaker.state == CLOSED)
        return true;
    if (node->breaker.state == OPEN || node->breaker.probe)
        return false;
    node->breaker.probe = command;
    return true;
}

/* ---- commands -------------------------------------------------------------------------------- */

/* The last word on a command: after it, the node does not know it. */
static void command_end(mr_redis_node *node, mr_redis_command *command, mr_redis_reply *reply,
                        const mr_error *why)
{
    if (command->place)
        node->queue.places[command->place & (node->queue.capacity - 1)].command = NULL;
    node->queue.commands--;
    node->queue.bytes -= command->wire_len;
    if (node->breaker.probe == command)
        node->breaker.probe = NULL;
    command->node = NULL;
    command->place = 0;
    command->done(command, reply, why);
}

static void waiting_remove(mr_redis_node *node, mr_redis_command *command)
{
    if (command->previous)
        command->previous->next = command->next;
    else
        node->queue.first = command->next;
    if (command->next)
        command->next->previous = command->previous;
    else
        node->queue.last = command->previous;
    command->next = command->previous = NULL;
}

static void command_fail(mr_redis_node *node, mr_redis_command *command, const mr_error *why)
{
    if (!command->place)
        waiting_remove(node, command);
    command_end(node, command, NULL, why);
}

/* Room for one more place. */
static bool places_reserve(mr_redis_node *node)
{
    if (node->queue.tail - node->queue.head < node->queue.capacity)
        return true;
    size_t capacity = node->queue.capacity ? 2 * node->queue.capacity : FIRST_PLACES;
    place *places = calloc(capacity, sizeof *places);
    if (!places)
        return false;
    for (uint64_t i = node->queue.head; i < node->queue.tail; i++)
        places[i & (capacity - 1)] = node->queue.places[i & (node->queue.capacity - 1)];
    free(node->queue.places);
    node->queue.places = places;
    node->queue.capacity = capacity;
    return true;
}

/* False: memory is out, nothing was sent. */
bool mr_redis_queue_write(mr_redis_node *node, mr_redis_command *command, const char *wire,
                          size_t len)
{
    if (!places_reserve(node) || !mr_redis_link_send(node->data, wire, len))
        return false;
    int64_t now = mr_clock_monotonic_us();
    node->queue.places[node->queue.tail & (node->queue.capacity - 1)] =
        (place){command, command ? command->skip : 0, now};
    if (command) {
        command->place = node->queue.tail;
        command->sent_us = now;
    }
    node->queue.tail++;
    return true;
}

void mr_redis_queue_send_waiting(mr_redis_node *node)
{
    int64_t now = mr_clock_monotonic_us();
    while (node->queue.first && node->state == READY) {
        mr_redis_command *command = node->queue.first;
        mr_error why = {0};
        waiting_remove(node, command);
        if (command->deadline_us <= now)
            (void)MR_FAIL(&why, TIMEOUT, "no time was left to ask Redis");
        else if (!mr_redis_queue_write(node, command, command->wire, command->wire_len))
            (void)MR_FAIL(&why, NO_MEMORY, "no memory to ask Redis");
        else
            continue;
        command_end(node, command, NULL, &why);
    }
}

static void refuse(mr_redis_node *node, mr_redis_command *command)
{
    char text[MR_REDIS_ADDRESS_TEXT];
    mr_error why = {0};
    (void)MR_FAIL(&why, UNAVAILABLE,
                  "Redis at %s is left alone after %u failures in a row; the last: %.300s",
                  mr_redis_address_text(&node->address, text), node->breaker.failures,
                  node->why.message[0] ? node->why.message : "not answered in time");
    command->done(command, NULL, &why);
}

void mr_redis_node_send(mr_redis_node *node, mr_redis_command *command)
{
    mr_error why = {0};
    command->node = NULL;
    command->place = 0;
    command->next = command->previous = NULL;
    if (node->queue.commands >= MR_REDIS_MAX_COMMANDS ||
        command->wire_len > MR_REDIS_MAX_QUEUED_BYTES - node->queue.bytes) {
        (void)MR_FAIL(&why, EXHAUSTED,
                      "%zu requests of %zu bytes wait for Redis already; more is asked of it than "
                      "it can do",
                      node->queue.commands, node->queue.bytes);
        command->done(command, NULL, &why);
        return;
    }
    if (!command->patient && !breaker_lets_through(node, command)) {
        refuse(node, command);
        return;
    }
    command->node = node;
    node->queue.commands++;
    node->queue.bytes += command->wire_len;
    command->previous = node->queue.last;
    if (node->queue.last)
        node->queue.last->next = command;
    else
        node->queue.first = command;
    node->queue.last = command;
    if (node->state == READY)
        mr_redis_queue_send_waiting(node);
}

void mr_redis_node_abandon(mr_redis_command *command)
{
    mr_redis_node *node = command->node;
    char text[MR_REDIS_ADDRESS_TEXT];
    mr_error why = {0};
    if (!node)
        return;
    bool counts = !command->patient || command->place;
    if (node->state == READY || !node->why.message[0])
        (void)MR_FAIL(&why, TIMEOUT, "Redis at %s did not answer in time",
                      mr_redis_address_text(&node->address, text));
    else
        why = node->why;
    command_fail(node, command, &why);
    if (counts)
        mr_redis_breaker_failed(node);
}

/* ---- replies --------------------------------------------------------------------------------- */

/* An answer of a server that cannot serve for now. */
static bool is_excuse(const mr_redis_value *value)
{
    return mr_redis_is_error(value, "LOADING") || mr_redis_is_error(value, "BUSY") ||
           mr_redis_is_error(value, "MASTERDOWN");
}

static bool is_expected(const mr_redis_command *command, const mr_redis_value *value, mr_error *why)
{
    if (!command->expect.on || value->type == MR_REDIS_ERROR)
        return true;
    if (value->type != command->expect.type) {
        (void)MR_FAIL(why, CORRUPT, "the server's answer is of type %s, expected %s",
                      mr_redis_type_name(value->type), mr_redis_type_name(command->expect.type));
        return false;
    }
    if (value->type == MR_REDIS_ARRAY && command->expect.n != MR_REDIS_ANY_N &&
        value->n != command->expect.n) {
        (void)MR_FAIL(why, CORRUPT, "the server's answer has %zu elements, expected %zu", value->n,
                      command->expect.n);
        return false;
    }
    return true;
}

answer_kind mr_redis_queue_answer(mr_redis_node *node, mr_redis_reply *reply, mr_error *why)
{
    const mr_redis_value *value = mr_redis_reply_value(reply);
    command_queue *queue = &node->queue;
    if (queue->head == queue->tail) {
        (void)MR_FAIL(why, CORRUPT, "the server sent what nobody had asked for: %.100s",
                      value->type == MR_REDIS_ERROR ? value->str : mr_redis_type_name(value->type));
        mr_redis_reply_free(reply);
        return ANSWER_ODD;
    }
    place *p = &queue->places[queue->head & (queue->capacity - 1)];
    if (p->skip) {
        p->skip--;
        mr_redis_reply_free(reply);
        return ANSWER_FINE;
    }
    mr_redis_command *command = p->command;
    queue->head++;
    if (!command) { /* a late answer says nothing good about the server */
        mr_redis_reply_free(reply);
        return ANSWER_FINE;
    }
    if (is_excuse(value))
        mr_redis_breaker_failed(node);
    else
        count_answer(node);
    if (!is_expected(command, value, why)) {
        mr_redis_reply_free(reply);
        command_end(node, command, NULL, why);
        return ANSWER_ODD;
    }
    bool demoted = node->options.must_be_master && mr_redis_is_error(value, "READONLY");
    command_end(node, command, reply, NULL);
    return demoted ? ANSWER_DEMOTED : ANSWER_FINE;
}

/* ---- ends ------------------------------------------------------------------------------------ */

/* Ends what is under way, and what waits when the breaker says that waiting is of no use. */
void mr_redis_queue_fail(mr_redis_node *node, const mr_error *why)
{
    while (node->queue.head < node->queue.tail) {
        mr_redis_command *command =
            node->queue.places[node->queue.head & (node->queue.capacity - 1)].command;
        node->queue.head++;
        if (command)
            command_end(node, command, NULL, why);
    }
    if (node->breaker.state == CLOSED)
        return;
    /* done may send again, to the end of the list: only those that were there are looked at. */
    mr_redis_command *end = node->queue.last;
    for (mr_redis_command *command = node->queue.first, *next; command; command = next) {
        next = command == end ? NULL : command->next;
        if (!command->patient)
            command_fail(node, command, why);
    }
}

void mr_redis_queue_fail_all(mr_redis_node *node, const mr_error *why)
{
    mr_redis_queue_fail(node, why);
    while (node->queue.first)
        command_fail(node, node->queue.first, why);
}

/* Whoever waits gives up by itself, and is left a little time to do so: it knows what to say. */
void mr_redis_queue_expire(mr_redis_node *node, int64_t now_us)
{
    mr_error why = {0};
    now_us -= GRACE_US;
    (void)MR_FAIL(&why, TIMEOUT, "Redis did not answer in time");
    mr_redis_command *end = node->queue.last;
    for (mr_redis_command *command = node->queue.first, *next; command; command = next) {
        next = command == end ? NULL : command->next;
        if (command->deadline_us <= now_us)
            command_fail(node, command, &why);
    }
    for (uint64_t i = node->queue.head, tail = node->queue.tail; i < tail && node->state == READY;
         i++) {
        mr_redis_command *command = node->queue.places[i & (node->queue.capacity - 1)].command;
        if (command && command->deadline_us <= now_us) {
            command_end(node, command, NULL, &why);
            mr_redis_breaker_failed(node);
        }
    }
}
