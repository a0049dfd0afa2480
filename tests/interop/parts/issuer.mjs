// A certified OpenID provider on loopback, for tests. It lets everyone in whom a test names, so it must never
// be anything else. It prints `listening URL`, and ends with its standard input.
//
// What it speaks: discovery, JWKS, client credentials, authorization code with PKCE (the person is whoever
// `login_hint` names, no browser), RFC 9068 access tokens for RFC 8707 resources, RFC 8693 exchange.
// Clients register (RFC 7591), or are described by a document of their own (`https://clients.example/NAME.json`, which is
// answered here). Tokens are bound to a key where a DPoP proof comes along, and say nothing (opaque, with RFC 7662 and
// RFC 7009) where the client's name begins with `opaque-`.
// `/test/client-key` is the private key of the client `signing-gateway`; `/test/exchanges` tells how many tokens were exchanged, `/test/clients` how clients came; `/test/logout?sub=NAME&uri=URI`
// has a person logged out there. Whoever comes without a `login_hint` is alice.

import http from 'node:http';
import { generateKeyPairSync } from 'node:crypto';

import { createLocalJWKSet, jwtVerify } from 'jose';
import { Provider, errors, interactionPolicy } from 'oidc-provider';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';
const LIFE_S = 600;

const GROUPS = { alice: ['developers'], bob: ['auditors'] };
// Machines get their groups by client.
const CLIENT_GROUPS = { nightly: ['developers'], 'opaque-nightly': ['developers'] };

const server = http.createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const named = (key) => ({ ...key.export({ format: 'jwk' }), kid: 'interop-1', alg: 'ES256', use: 'sig' });
const ownKeys = createLocalJWKSet({ keys: [named(publicKey)] });

// The key of a client that signs what it says.
const clientKey = generateKeyPairSync('ec', { namedCurve: 'P-256' });

/** What a token for one resource looks like; every resource is one of this machine. */
function resourceServer(resource, client) {
  if (!resource.startsWith('http://127.0.0.1:')) throw new errors.InvalidTarget();
  return {
    audience: resource,
    scope: 'mcp',
    accessTokenTTL: LIFE_S,
    ...(client?.clientId.startsWith('opaque-')
      ? { accessTokenFormat: 'opaque' }
      : { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }),
  };
}

const came = { registered: 0, described: 0 };

// Where clients describe themselves: those of the tests, and assistants whose makers are not asked here.
const DOCUMENTS = ['clients.example', 'chatgpt.com', 'claude.ai'];

/** What stands at an address: our clients' own documents, or whatever is there on this machine. */
async function fetchHere(url, { dispatcher, ...options }) {
  const { host, href, pathname } = new URL(url);
  if (!DOCUMENTS.includes(host)) return globalThis.fetch(url, options);
  came.described += 1;
  return Response.json({
    client_id: href,
    client_name: pathname.slice(1).replace('.json', ''),
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    redirect_uris: ['/callback', '/oauth/callback'].flatMap((path) =>
      ['127.0.0.1', 'localhost'].map((name) => `http://${name}${path}`)),
  });
}

const provider = new Provider(issuer, {
  jwks: { keys: [named(privateKey)] },
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  cookies: { keys: ['only for tests'] },
  // A scope of a resource has to stand here as well, and is then granted twice.
  scopes: ['openid', 'mcp'],
  clients: [
    {
      client_id: 'assistant',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback'],
    },
    {
      // The one client of a provider that lets nobody register.
      client_id: 'shared',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/oauth/test/callback'],
    },
    {
      client_id: 'nightly',
      client_secret: 'nightly-secret-of-the-tests-0123456789',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
      scope: 'mcp',
    },
    {
      client_id: 'opaque-assistant',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback'],
    },
    {
      client_id: 'opaque-nightly',
      client_secret: 'nightly-secret-of-the-tests-0123456789',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
      scope: 'mcp',
    },
    {
      client_id: 'signing-gateway',
      token_endpoint_auth_method: 'private_key_jwt',
      jwks: { keys: [{ ...clientKey.publicKey.export({ format: 'jwk' }), kid: 'gateway-key', use: 'sig' }] },
      grant_types: [EXCHANGE],
      response_types: [],
      redirect_uris: [],
      scope: 'mcp',
    },
    {
      client_id: 'gateway',
      client_secret: 'gateway-secret-of-the-tests-0123456789',
      grant_types: [EXCHANGE],
      response_types: [],
      redirect_uris: [],
      scope: 'mcp',
    },
  ],
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  // The consent of a person whom nobody asks: everything that is requested.
  async loadExistingGrant(ctx) {
    const { client, session, params } = ctx.oidc;
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid mcp');
    for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, 'mcp');
    await grant.save();
    return grant;
  },
  // A native client is always asked for consent, which needs a person: only the login is left.
  interactions: { url: (ctx, interaction) => `/login/${interaction.uid}`, policy: loginOnly() },
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    registration: { enabled: true },
    clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
    introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId === 'gateway' },
    revocation: { enabled: true, allowedPolicy: (ctx, client, token) => token.clientId === client.clientId },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource, client) => resourceServer(resource, client),
      useGrantedResource: () => true,
    },
  },
  // Everything here is on this machine, which the provider's own guard would not reach.
  fetch: fetchHere,
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  extraTokenClaims: (ctx, token) => ({
    groups: GROUPS[token.accountId] ?? CLIENT_GROUPS[token.clientId] ?? [],
    ...(ctx.state.actor && { act: { sub: ctx.state.actor } }),
  }),
  ttl: { AccessToken: LIFE_S, ClientCredentials: LIFE_S, Grant: LIFE_S, Session: LIFE_S, Interaction: LIFE_S },
});

function loginOnly() {
  const policy = interactionPolicy.base();
  policy.remove('consent');
  return policy;
}

let exchanges = 0;

/** RFC 8693: a token of ours for any resource becomes one for the audience that is asked for. */
async function exchange(ctx) {
  const { client, params } = ctx.oidc;
  if (params.subject_token_type !== ACCESS_TOKEN) throw new errors.InvalidRequest('subject_token_type');
  let subject;
  try {
    subject = (await jwtVerify(params.subject_token, ownKeys, { issuer, typ: 'at+jwt' })).payload;
  } catch {
    throw new errors.InvalidGrant('the subject token is not a valid one of ours');
  }
  let actor = client.clientId;
  if (params.actor_token !== undefined) {
    // Who acts is said by the client, signed with its own key, to this issuer.
    if (params.actor_token_type !== JWT) throw new errors.InvalidRequest('actor_token_type');
    try {
      const stated = { issuer: client.clientId, audience: issuer };
      actor = (await jwtVerify(params.actor_token, clientKey.publicKey, stated)).payload.sub;
    } catch {
      throw new errors.InvalidGrant('the actor token is not a valid one of the client');
    }
  }
  const target = params.audience ?? params.resource;
  const token = new provider.AccessToken({
    accountId: subject.sub,
    client,
    clientId: client.clientId,
    gty: 'token_exchange',
    scope: 'mcp',
  });
  token.resourceServer = new provider.ResourceServer(target, resourceServer(target));
  ctx.state.actor = actor;
  ctx.oidc.entity('AccessToken', token);
  exchanges += 1;
  ctx.body = {
    access_token: await token.save(),
    issued_token_type: ACCESS_TOKEN,
    token_type: 'Bearer',
    expires_in: token.expiration,
  };
}

provider.registerGrantType(EXCHANGE, exchange, [
  'subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'requested_token_type', 'audience', 'resource', 'scope',
]);

const answerProvider = provider.callback();
server.on('request', async (request, response) => {
  try {
    if (request.url === '/test/client-key') {
      response.end(clientKey.privateKey.export({ format: 'pem', type: 'pkcs8' }));
    } else if (request.url === '/test/exchanges') {
      response.end(String(exchanges));
    } else if (request.url === '/test/clients') {
      response.end(JSON.stringify(came));
    } else if (request.url.startsWith('/test/logout?')) {
      const asked = new URL(request.url, issuer).searchParams;
      const client = await provider.Client.find('assistant');
      client.backchannelLogoutUri = asked.get('uri');
      await client.backchannelLogout(asked.get('sub'));
      response.end('told');
    } else if (request.url.startsWith('/login/')) {
      const { params } = await provider.interactionDetails(request, response);
      await provider.interactionFinished(request, response, { login: { accountId: params.login_hint ?? 'alice' } });
    } else {
      // RFC 8414 clients ask here first; the document is the same.
      if (request.url === '/.well-known/oauth-authorization-server') {
        request.url = '/.well-known/openid-configuration';
      }
      answerProvider(request, response);
    }
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error));
  }
});
provider.on('registration_create.success', () => { came.registered += 1; });
provider.on('server_error', (ctx, error) => console.error(error));
// Whoever started this reads the one line below and no more.
process.stdout.on('error', () => {});
process.stdin.on('end', () => process.exit()).resume();
console.log(`listening ${issuer}`);
