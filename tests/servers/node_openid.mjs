// An OpenID provider by other people than Keycloak's: npm's certified `oidc-provider`, with its own pages to sign in.
//
// It is told everything as one JSON object on standard input: `port`, `client`. Who is in which groups comes from a file, so that
// a test can change it; anybody may sign in, with any password.

import { readFileSync } from "node:fs";

import { Provider } from "oidc-provider";

const told = JSON.parse(readFileSync(0, "utf8"));
const issuer = `http://127.0.0.1:${told.port}`;

function person(id) {
  const known = JSON.parse(readFileSync(told.people, "utf8"));
  return { name: id, preferred_username: id, groups: known[id] ?? [] };
}

const provider = new Provider(issuer, {
  clients: [told.client],
  claims: { openid: ["sub", "sid"], profile: ["name", "preferred_username"], groups: ["groups"] },
  scopes: ["openid", "profile", "groups"],
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...person(id) }) }),
  issueRefreshToken: () => true,
  expiresWithSession: () => false,
  pkce: { required: () => true },
  features: {
    devInteractions: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    backchannelLogout: { enabled: true },
    revocation: { enabled: true },
  },
  cookies: { keys: [told.cookie_key] },
  ttl: { AccessToken: 60, IdToken: 300, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 600 },
});
for (const event of ["server_error", "backchannel.error"]) {
  provider.on(event, (_, error) => console.error(event, error));
}
provider.listen(told.port, "127.0.0.1", () => console.log("listening"));
