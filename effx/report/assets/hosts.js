// The same engines on several hosts: values, ranks and how the ranks change.

// Whether scores of two groups of a task are of the same rows, as Cohort.has_rows_of (effx/analysis/cohorts.py). Texts that
// were not recorded differ from no other, if all others of these rows agree.
function scoredAlike(a, b, groups) {
  const alike = (group) => group.rows === b.rows && group.n === b.n && group.reference === b.reference;
  const texts = new Set(groups.filter(alike).map((group) => group.texts).filter(Boolean));
  return alike(a) && (texts.size < 2 || a.texts === b.texts);
}

function hostsSection() {
  const byTask = new Map();
  const metrics = (task) => new Set(DATA.groups.filter((group) => group.task === task).map((group) => group.metric)).size;
  for (const group of DATA.groups) {
    const name = metrics(group.task) > 1 ? `${group.task}, ${group.metric}` : group.task;
    byTask.set(name, [...(byTask.get(name) || []), group]);
  }
  const tasks = [...byTask].filter(([, groups]) => new Set(groups.map((entry) => entry.host)).size > 1).map(([task]) => task);
  const list = el('ul', { class: 'hosts' }, Object.entries(DATA.hosts).map(([id, host]) => el('li', {}, el('code', {}, id),
    `: ${[host.cpu, `${host.cores} cores`, host.memory_bytes ? `${significant(host.memory_bytes / 2 ** 30)} GiB` : null, host.virtual ? 'virtual machine' : null, host.system, (host.gpu || []).map((entry) => entry.name).join(', ') || null, `effx ${host.effx}${host.effx_commit ? ` (${host.effx_commit})` : ''}`].filter(Boolean).join(', ')}`)));
  if (!tasks.length) { section('hosts', 'Host', list); return; }
  const state = { task: tasks[0], objective: 'latency' };
  const controls = el('div', { class: 'controls' });
  const container = el('div', {});
  const update = () => {
    const criterion = objective(state.objective);
    const every = byTask.get(state.task);
    // scores of other rows are not compared: the rows of most hosts
    const hostsWith = (group) => new Set(every.filter((entry) => scoredAlike(entry, group, every)).map((entry) => entry.host)).size;
    const first = every.reduce((best, group) => (hostsWith(group) > hostsWith(best) ? group : best));
    const groups = criterion.score ? every.filter((group) => scoredAlike(group, first, every)) : every;
    const others = [...new Set(every.map((group) => group.host))].filter((host) => !groups.some((group) => group.host === host));
    const hosts = [...new Set(groups.map((entry) => entry.host))];
    const engines = new Map();
    for (const group of groups) {
      for (const entry of group.members) {
        const row = ROWS[entry];
        if (valueOf(row, state.objective) === null) continue;
        if (!engines.has(row.name)) engines.set(row.name, new Map());
        if (!engines.get(row.name).has(row.host)) engines.get(row.name).set(row.host, row);
      }
    }
    const everywhere = [...engines].filter(([, entry]) => hosts.every((host) => entry.has(host)));
    // joules are ranked within one meter of each host: the meters of most engines
    const metersOf = ([, entry]) => hosts.map((host) => meterOf(entry.get(host))).join('; ');
    const engineCount = new Map();
    for (const engine of everywhere) engineCount.set(metersOf(engine), (engineCount.get(metersOf(engine)) || 0) + 1);
    const usual = [...engineCount.keys()].reduce((best, entry) => (engineCount.get(entry) > engineCount.get(best) ? entry : best), [...engineCount.keys()][0]);
    const shared = energetic(state.objective) ? everywhere.filter((engine) => metersOf(engine) === usual) : everywhere;
    const ranks = new Map(hosts.map((host) => {
      const sorted = shared.map(([, entry]) => valueOf(entry.get(host), criterion.name)).sort((a, b) => (criterion.maximise ? b - a : a - b));
      const first = new Map();
      sorted.forEach((value, container) => { if (!first.has(value)) first.set(value, container + 1); });
      return [host, (row) => first.get(valueOf(row, criterion.name))];
    }));
    const rows = shared.map(([name, entry]) => rowWith(entry.get(hosts[0]), { name, entry, digests: new Set([...entry.values()].map((row) => row.digest)).size }));
    const unit = unitSymbol(criterion.unit);
    const table = new DataTable({
      caption: `${criterion.label} of the same engines on ${count(hosts.length, 'host')}`, rows, sort: hosts[0], empty: 'No engine was measured on all of these hosts.',
      columns: [
        { key: 'name', title: 'engine', align: 'word', sort: (row) => row.name, text: (row) => [row.name, row.digests > 1 ? el('small', {}, ' (built differently)') : null] },
        ...hosts.flatMap((host, number) => [
          { key: host, title: `${host}${unit ? `, ${unit}` : ''}`, sort: (row) => valueOf(row.entry.get(host), criterion.name), text: (row) => cell(row.entry.get(host), criterion) },
          { key: `${host} rank`, title: 'rank', sort: (row) => ranks.get(host)(row.entry.get(host)), text: (row) => {
            const entry = ranks.get(host)(row.entry.get(host)), moved = ranks.get(hosts[0])(row.entry.get(hosts[0])) - entry;
            return [String(entry), number && moved ? el('span', { class: moved > 0 ? 'up' : 'down' }, moved > 0 ? ` ▲${moved}` : ` ▼${-moved}`) : null];
          } },
        ]),
      ],
    });
    const some = engines.size - everywhere.length, metered = everywhere.length - shared.length;
    container.replaceChildren(soft(`Ranks by measured values, 1 is best, among the ${shared.length} engines measured on every host${some ? ` (${some} others left out)` : ''}; arrows show the change from ${hosts[0]}.${metered ? ` Energies from different sources or meters cannot be compared: ${count(metered, 'engine')} of other meters left out.` : ''}${others.length ? ` Scored on other rows, and not compared: ${others.join(', ')}.` : ''} Neighbouring ranks may be ties: compare the intervals.${energetic(state.objective) && rows.length ? ` Energy sources: ${hosts.map((host) => `${meters(rows.map((row) => row.entry.get(host))).join(', ')} on ${host}`).join('; ')}.` : ''}`), table.root);
  };
  controls.append(...[
    tasks.length > 1 ? select('Task', tasks.map((entry) => [entry, entry]), state.task, (entry) => { state.task = entry; update(); }) : null,
    select('Objective', OBJECTIVES.map((criterion) => [criterion.name, criterion.label]), state.objective, (entry) => { state.objective = entry; update(); }),
  ].filter(Boolean));
  section('hosts', 'Comparison of hosts', controls, container, list);
  update();
}
