/* kafka_broker.h - a real Kafka broker for tests and the chaos run, by the script kafka/broker.
 *
 *     kafka_broker *broker = kafka_broker_start(NULL);
 *     if (!broker)
 *         return kafka_broker_skip();                77 where there is no Java or Maven, else 1
 *     ... kafka_broker_address(broker) ...
 *     kafka_broker_free(broker);
 *
 * Takes some 10 s to start. It ends when this process does, however that ends, and its folder goes
 * with kafka_broker_free. What fails prints its reason to stderr: no cmocka here.
 * Environment: KAFKA_CACHE, see the script.
 * Threads: one.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_KAFKA_BROKER_H
#define MR_TESTS_KAFKA_BROKER_H

#include <stdbool.h>

typedef struct kafka_broker kafka_broker;

/* settings: lines of server.properties, NULL ends; may be NULL. */
kafka_broker *kafka_broker_start(const char *const *settings);
int kafka_broker_skip(void);            /* after a start that gave NULL */
void kafka_broker_free(kafka_broker *); /* NULL is fine */

const char *kafka_broker_address(const kafka_broker *broker); /* "127.0.0.1:PORT" */
bool kafka_broker_restart(kafka_broker *broker);              /* same port, same data */
bool kafka_broker_kill(kafka_broker *broker);                 /* SIGKILL */

#endif
