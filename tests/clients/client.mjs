// Drives the clients that upstream publishes: node client.mjs FOLDER VERSION SPEC BUILD_URL [TOKEN]. One JSON object a line.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, version, spec, url, token] = process.argv.slice(2);
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

// What browsers have and node has not.
globalThis.window = globalThis;
const deaf = { addEventListener() {}, removeEventListener() {} };
Object.assign(globalThis, deaf, { document: { hidden: false, cookie: "", readyState: "complete", body: {}, ...deaf } });

const file = createRequire(`${folder}/x.js`);
const load = async (name) => import(pathToFileURL(file.resolve(name)));

if (version === "0.4.0") {
  const { BinderRepository } = await load("client-0.4");
  const repository = new BinderRepository(spec, new URL(url), token);
  await follow(repository, (ready) => repository.getFullRedirectURL(new URL(ready.url), ready.token, "a b.ipynb", "lab"));
} else {
  const { BinderRepository } = await load("@jupyterhub/binderhub-client/client.js");
  const { LaunchSpec } = await load("@jupyterhub/binderhub-client/spec.js");
  const opened = LaunchSpec.fromSearchParams(new URLSearchParams("labpath=a%20b.ipynb"));
  const repository = new BinderRepository(spec, new URL(url), { buildToken: token });
  await follow(repository, (ready) => opened.getJupyterServerRedirectUrl(new URL(ready.url), ready.token));
}

async function follow(repository, wayIn) {
  for await (const event of repository.fetch()) {
    say(event);
    if (event.phase === "ready") say({ into: wayIn(event).href });
    if (event.phase === "ready" || event.phase === "failed") repository.close();
  }
  process.exit(0);
}
