// The effects of a job, for worker programs in Node: two calls to the database of effects, past the pooler.
//
// A program loads it with require("effects.cjs"): its folder is on NODE_PATH. It needs pg.

"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { Client, Pool } = require("pg");

const environment = process.env;
// through the chain, and past it
const { DATABASE_URL, DIRECT_URL, WORKER = "", VARIANT = "" } = environment;
const LEASE_S = Number(environment.LEASE_S ?? 0);
const POLL_S = Number(environment.POLL_S ?? 1);
const CONCURRENCY = Number(environment.CONCURRENCY ?? 4);
const ATTEMPTS = Number(environment.ATTEMPTS ?? 3);
const CRON_S = Number(environment.CRON_S ?? 60);
// what each job is given besides its key
const PAYLOAD = JSON.parse(environment.PAYLOAD || "{}");
// how often a job renews its lease: several times within it
const RENEWS_S = Math.max(LEASE_S / 4, 0.1);
// SQLSTATE classes of a connection that is lost, or a server that shuts down
const LOST = /^(08|57P)/;

const effects = new Pool({ connectionString: environment.EFFECTS_URL, max: 4, allowExitOnIdle: true });
effects.on("error", () => {}); // an idle connection is lost: the next query opens another one

class PlannedFailureError extends Error {}

/**
 * Do what the harness planned for a job, and return its key.
 *
 * attempt: its number, from 1, if the engine says it. job: the engine's own id of the job. payload: what the job was
 * given besides its key. heartbeat: renews the lease.
 * Throws PlannedFailureError when this attempt is meant to fail.
 */
async function perform(key, { attempt = null, job = "", payload = null, heartbeat = null } = {}) {
  const given = payload === null ? null : JSON.stringify(payload);
  const [plan] = await ask("SELECT * FROM job_begin($1::integer, $2, $3::integer, $4::integer, $5, $6::jsonb)", [
    key, WORKER, process.pid, attempt, String(job), given,
  ]);
  if (plan.sql) await through(DATABASE_URL, (chain) => chain.query(plan.sql));
  const ends = performance.now() + plan.seconds * 1000;
  const renews = plan.heartbeat && heartbeat;
  for (let left; (left = ends - performance.now()) > 0; ) {
    await sleep(renews ? Math.min(left, RENEWS_S * 1000) : left);
    if (renews) await heartbeat();
  }
  await report(key, plan.fails ? "failed" : "done", { attempt, job });
  if (plan.fails) throw new PlannedFailureError(`attempt of job ${key} that is meant to fail`);
  return key;
}

/** Report that jobs are enqueued: their transaction is committed. */
async function enqueued(...keys) {
  for (const key of keys) await report(key, "enqueued");
}

/** Report a phase of a job. */
async function report(key, phase, { attempt = null, job = "" } = {}) {
  await ask("SELECT job_phase($1::integer, $2, $3, $4::integer, $5::integer, $6)", [
    key, phase, WORKER, process.pid, attempt, String(job),
  ]);
}

/** Call work with a connection of its own, and close it. */
async function through(url, work) {
  const client = new Client({ connectionString: url });
  client.on("error", () => {}); // the query that it interrupts reports it
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Run a statement in the database of effects; once more on a new connection when the old one is lost. */
async function ask(statement, values) {
  try {
    return (await effects.query(statement, values)).rows;
  } catch (error) {
    if (error.severity !== undefined && !LOST.test(error.code)) throw error;
    return (await through(process.env.EFFECTS_URL, (client) => client.query(statement, values))).rows;
  }
}

module.exports = {
  DATABASE_URL, DIRECT_URL, WORKER, VARIANT, LEASE_S, POLL_S, CONCURRENCY, ATTEMPTS, CRON_S, PAYLOAD,
  PlannedFailureError, perform, enqueued, report, through,
};
