// better-auth as its documentation sets it up: node server, pg pool, e-mail and password.
// Not its defaults, so that the same work is compared: argon2id with our parameters instead of scrypt, as many
// connections as ours, no rate limit (its own is in memory), and a session that is refreshed whenever it is read,
// unless the request says `disableRefresh`: that is what comes closest to a refresh.
import { createServer } from "node:http";
import { hash, verify } from "@node-rs/argon2";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import pg from "pg";

const { memory_kib: memoryCost, time_cost: timeCost, parallelism } = JSON.parse(process.env.PEER_HASH);
const options = {
  baseURL: process.env.PEER_URL,
  secret: process.env.PEER_SECRET,
  database: new pg.Pool({
    connectionString: process.env.PEER_DATABASE_URL,
    max: Number(process.env.PEER_POOL_SIZE),
  }),
  emailAndPassword: {
    enabled: true,
    autoSignIn: false,
    password: {
      hash: (password) => hash(password, { memoryCost, timeCost, parallelism }),
      verify: (data) => verify(data.hash, data.password),
    },
  },
  rateLimit: { enabled: false },
  session: { updateAge: 0 },
  telemetry: { enabled: false },
  logger: { disabled: true },
};

await (await getMigrations(options)).runMigrations();
const url = new URL(process.env.PEER_URL);
createServer(toNodeHandler(betterAuth(options))).listen(Number(url.port), url.hostname);
